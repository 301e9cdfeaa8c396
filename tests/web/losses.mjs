// node losses.mjs DIRECTORY STEPS: what Node makes of a directory of `--to web`, as JSON.
import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { batches } from "./batches.mjs";

const [directory, steps] = [process.argv[2], Number(process.argv[3])];
const { load, parse } = await import(pathToFileURL(`${directory}/nncompile.mjs`));
const options = { intraOpNumThreads: 1 };
const training = await load(directory, { options });
const batch = batches(training, parse(await readFile(`${directory}/data.safetensors`)).tensors);

const metrics = [];
for (let i = 0; i < steps; i++) metrics.push(await training.step(batch(i)));
const predicted = await training.predict(batch(0));
await writeFile(`${directory}/saved.safetensors`, training.save());
const again = await load(directory, { options, state: await readFile(`${directory}/saved.safetensors`) });
const next = await again.step(batch(steps));
const first = await load(directory, { options });
const together = first.manifest.files.steps
  ? await first.steps(Array.from({ length: Math.min(steps, 8) }, (_, i) => batch(i))) : [];
const outputs = Object.fromEntries(Object.entries(predicted).map(([name, x]) => [name, Array.from(x.data, Number)]));
console.log(JSON.stringify({ metrics, together, next, outputs }));
