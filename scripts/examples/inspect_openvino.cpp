// Judges one image with an exported model by OpenVINO: inspect MODEL.onnx IMAGE.ppm (or MODEL.xml, beside MODEL.bin)
// It prints the score and the verdict, and ends with 0 for a good image, 1 for a defective one and 2 after a mistake.
//
//     OV=$(python -c "import openvino; print(openvino.__path__[0])")     # pip install openvino brings headers and libraries
//     g++ -std=c++17 -O2 inspect_openvino.cpp -I"$OV/include" "$OV"/libs/libopenvino.so.* -Wl,-rpath,"$OV/libs" -o inspect

#include <iostream>
#include <openvino/openvino.hpp>

#include "ppm.h"

int main(int count, char** given) {
    if (count != 3) {
        std::cerr << "usage: inspect MODEL IMAGE.ppm\n";
        return 2;
    }
    try {
        ov::Core core;
        // In fp32 as the model was made: left to itself, OpenVINO takes bf16 where the processor has it.
        auto model = core.compile_model(given[1], "CPU", ov::hint::inference_precision(ov::element::f32));
        // uint8 (batch, height, width, 3); the batch is free.
        const auto shape = model.input().get_partial_shape();
        const auto height = shape[1].get_length(), width = shape[2].get_length();
        std::vector<std::uint8_t> pixels = read_ppm(given[2], height, width);
        auto request = model.create_infer_request();
        request.set_input_tensor(ov::Tensor(
            ov::element::u8, {1, static_cast<std::size_t>(height), static_cast<std::size_t>(width), 3}, pixels.data()));
        request.infer();
        const float score = *request.get_tensor("score").data<float>();  // and "map", float (batch, height, width)
        const bool is_anomalous = *static_cast<const char*>(request.get_tensor("is_anomalous").data()) != 0;
        std::cout << score << (is_anomalous ? " defective\n" : " good\n");
        return is_anomalous ? 1 : 0;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 2;
    }
}
