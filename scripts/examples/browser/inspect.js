// Judges one image in the browser: the exported model runs here, and no image leaves the machine.
// Beside this file lie model.onnx (heldout export models/bolt --to onnx) and three files of the npm package
// onnxruntime-web: dist/ort.wasm.min.mjs, dist/ort-wasm-simd-threaded.mjs and dist/ort-wasm-simd-threaded.wasm.
import * as ort from "./ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more take a page that is isolated from others (COOP and COEP headers)

const verdict = document.querySelector("#verdict");
const session = await ort.InferenceSession.create("model.onnx");
const [, height, width] = session.inputMetadata[0].shape; // uint8 (batch, height, width, 3)
verdict.textContent = `ready, ${width} x ${height} pixels`;

/** Score, decision and anomaly map of an image, which is stretched to the size that the model was fitted at. */
export async function inspect(image) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // beneath what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => rgba[Math.floor(i / 3) * 4 + (i % 3)]);
  const images = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  const { score, map, is_anomalous } = await session.run({ images });
  return { score: score.data[0], isAnomalous: Boolean(is_anomalous.data[0]), map: map.data };
}

document.querySelector("#image").addEventListener("change", async ({ target }) => {
  try {
    const image = await createImageBitmap(target.files[0]);
    const { score, isAnomalous, map } = await inspect(image);
    const highest = map.reduce((best, value, i) => (value > map[best] ? i : best), 0);
    const [x, y] = [highest % width, Math.floor(highest / width)];
    verdict.textContent = `${isAnomalous ? "defective" : "good"}, score ${score}, most at ${x}, ${y} of ${width} x ${height}`;
  } catch (error) {
    verdict.textContent = `this image cannot be inspected: ${error.message}`;
  }
});
