// node mistakes.mjs DIRECTORY OTHER SERVER: what is said of each mistake, as JSON.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [directory, other, server] = process.argv.slice(2);
const { load, parse, read } = await import(pathToFileURL(`${directory}/nncompile.mjs`));
const training = await load(directory);
const x = (...dims) => ({ data: new Float32Array(dims.reduce((a, b) => a * b)), dims });
const y = (n) => ({ data: new BigInt64Array(n), dims: [n] });
const good = { x: x(4, 64), y: y(4) };

const mistakes = {
  "a wrong size": () => training.step({ ...good, x: x(4, 63) }),
  "a wrong rank": () => training.step({ ...good, x: x(4, 8, 8) }),
  "rows that differ": () => training.step({ ...good, y: y(3) }),
  "another element type": () => training.step({ ...good, y: { data: new Int32Array(4), dims: [4] } }),
  "plain numbers": () => training.step({ ...good, y: [1, 2, 3, 4] }),
  "nothing": () => training.step({ x: good.x }),
  "an unknown input": () => training.step({ ...good, z: y(4) }),
  "batches of two sizes": () => training.steps([good, { x: x(2, 64), y: y(2) }]),
  "no examples": () => training.step({ x: { data: new Float32Array(0), dims: [0, 64] }, y: y(0) }),
  "too few numbers": () => training.step({ ...good, x: { data: new Float32Array(5), dims: [4, 64] } }),
  "no directory": () => load(`${directory}/nowhere`),
  "no state": () => load(other),
  "a page": () => read(new URL(`${server}/index.html`)),
  "nothing there": () => load(`${server}/nowhere`),
  "another state": async () => load(directory, { state: await readFile(`${other}/other.safetensors`) }),
  "half a state": async () => load(directory, { state: (await readFile(`${directory}/state.safetensors`)).subarray(0, -1) }),
  "no file of several steps": () => { delete training.manifest.files.steps; return training.steps([good]); },
  "no state at all": () => parse(new Uint8Array(100).fill(65)),
};
const said = {};
for (const [name, mistake] of Object.entries(mistakes))
  try { await mistake(); said[name] = null; } catch (error) { said[name] = error.message; }
const { loss } = await training.step(good); // it goes on
console.log(JSON.stringify({ said, loss, steps: Number(training.state.step.data[0]) }));
