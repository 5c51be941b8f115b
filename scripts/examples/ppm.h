// Images for the examples without a library: binary PPM, which `Image.open("a.png").convert("RGB").save("a.ppm")` of
// Pillow, ImageMagick and most cameras' software write.
#pragma once

#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

// Red, green and blue of each pixel, row by row. Throws where there is no such image, or one of another size.
inline std::vector<std::uint8_t> read_ppm(const std::string& path, std::int64_t height, std::int64_t width) {
    std::ifstream file(path, std::ios::binary);
    std::string format;
    std::int64_t columns = 0, rows = 0, highest = 0;
    if (!(file >> format >> columns >> rows >> highest) || format != "P6" || highest != 255)
        throw std::runtime_error(path + " is no binary PPM of 8 bits");
    if (columns != width || rows != height)
        throw std::runtime_error(path + " has " + std::to_string(columns) + " x " + std::to_string(rows) +
                                 " pixels: stretch it to " + std::to_string(width) + " x " + std::to_string(height));
    file.get();  // one white space ends the header
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(height * width * 3));
    if (!file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size())))
        throw std::runtime_error(path + " is cut off");
    return pixels;
}
