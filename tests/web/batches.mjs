// The batches of a directory of `--to web`: the rows follow each other, and begin again.
export function batches({ manifest }, tensors) {
  const isCut = (name) => manifest.inputs[name].shape[0] === manifest.examples;
  const count = Object.entries(tensors).find(([name]) => isCut(name))[1].dims[0];
  const size = Math.min(manifest.batch_size, count);
  const taken = (name, { data, dims }, i) => {
    if (!isCut(name)) return { data, dims };
    const [first, width] = [(i * size) % (count - size + 1), data.length / count];
    return { data: data.slice(first * width, (first + size) * width), dims: [size, ...dims.slice(1)] };
  };
  return (i) => Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, taken(name, x, i)]));
}
