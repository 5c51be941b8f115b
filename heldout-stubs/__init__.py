# For setuptools, to which a folder without this file is no package. Nothing can import it.
