"""The products of the demo set and what can be wrong with them: surfaces, which `scene` lights and photographs."""
