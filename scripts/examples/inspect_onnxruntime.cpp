// Judges one image with an exported model by ONNX Runtime: inspect MODEL.onnx IMAGE.ppm
// It prints the score and the verdict, and ends with 0 for a good image, 1 for a defective one and 2 after a mistake.
//
//     g++ -std=c++17 -O2 inspect_onnxruntime.cpp -I"$ORT/include" -L"$ORT/lib" -lonnxruntime -Wl,-rpath,"$ORT/lib" -o inspect
//
// ORT is an unpacked release of ONNX Runtime. This file was never compiled where heldout is made, which cannot get one;
// inspect_openvino.cpp is the same program, and is tested.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <iostream>

#include "ppm.h"

int main(int count, char** given) {
    if (count != 3) {
        std::cerr << "usage: inspect MODEL.onnx IMAGE.ppm\n";
        return 2;
    }
    try {
        Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "heldout");
        Ort::Session session(env, given[1], Ort::SessionOptions{});
        // uint8 (batch, height, width, 3); the batch is free.
        const auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
        std::vector<std::uint8_t> pixels = read_ppm(given[2], shape.at(1), shape.at(2));
        const std::array<std::int64_t, 4> one{1, shape.at(1), shape.at(2), 3};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
        const auto image =
            Ort::Value::CreateTensor<std::uint8_t>(memory, pixels.data(), pixels.size(), one.data(), one.size());
        const char* inputs[] = {"images"};
        const char* outputs[] = {"score", "is_anomalous"};  // and "map", float (batch, height, width)
        const auto answers = session.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, outputs, 2);
        const float score = *answers[0].GetTensorData<float>();
        const bool is_anomalous = *answers[1].GetTensorData<bool>();
        std::cout << score << (is_anomalous ? " defective\n" : " good\n");
        return is_anomalous ? 1 : 0;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 2;
    }
}
