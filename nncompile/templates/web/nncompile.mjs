// Trains the network in this directory, in a browser or in Node, with onnxruntime alone:
// const training = await load(); const { loss } = await training.step({ image, label });
// The data of an input are an ort.Tensor, or { data, dims }: a typed array and its sizes.

const KINDS = { // by the name in .safetensors: that of onnxruntime, and the array of the elements
  F64: ["float64", Float64Array], F32: ["float32", Float32Array],
  F16: ["float16", globalThis.Float16Array ?? Uint16Array], // as onnxruntime takes it
  I64: ["int64", BigInt64Array], I32: ["int32", Int32Array], I16: ["int16", Int16Array],
  I8: ["int8", Int8Array], U64: ["uint64", BigUint64Array], U32: ["uint32", Uint32Array],
  U16: ["uint16", Uint16Array], U8: ["uint8", Uint8Array], BOOL: ["bool", Uint8Array],
};
const ARRAYS = Object.fromEntries(Object.values(KINDS));
const shown = (x) => (x ? `${x.type}[${[...x.dims].join(", ")}]` : "missing");
const mapped = (object, f) => Object.fromEntries(Object.entries(object).map(([k, x]) => [k, f(x, k)]));

/** The training in a directory, by default that of this file. `ort` is onnxruntime-web or
 * onnxruntime-node, `options` those of its sessions, `state` a file that `save` or Python wrote. */
export async function load(directory = new URL(".", import.meta.url), { ort, options, state } = {}) {
  const isNode = Boolean(globalThis.process?.versions?.node);
  if (!isNode && !globalThis.WebAssembly) throw new Error("this browser has no WebAssembly");
  ort ??= globalThis.ort ?? (isNode ? (await import("onnxruntime-node")).default : null);
  if (!ort) throw new Error("onnxruntime-web is missing: load(directory, { ort })");
  const base = isNode ? (await import("node:url")).pathToFileURL("./") : location.href;
  const place = new URL(String(directory).replace(/\/?$/, "/"), base);
  const open = (name) => read(new URL(name, place));
  const manifest = JSON.parse(new TextDecoder().decode(await open("manifest.json")));
  return new Training(manifest, open, { ort, options }, await open(manifest.files.state), state);
}

/** The bytes at a URL. */
export async function read(url) {
  try {
    if (url.protocol === "file:") return await (await import("node:fs/promises")).readFile(url);
    const response = await fetch(url);
    const isPage = response.headers.get("content-type")?.includes("html"); // instead of an error
    if (response.ok && !isPage) return new Uint8Array(await response.arrayBuffer());
    throw new Error(response.ok ? "the server answers with a page" : `HTTP ${response.status}`);
  } catch (error) {
    throw new Error(`cannot read ${url}: ${error.code ?? error.message}`);
  }
}

/** What the bytes of a .safetensors file hold: strings, and tensors { type, data, dims }. */
export function parse(file) {
  const start = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  if (start > file.length) throw new Error("this is not a complete .safetensors file");
  const { __metadata__: about, ...fields } = JSON.parse(new TextDecoder().decode(file.subarray(8, start)));
  const tensors = mapped(fields, ({ dtype, shape: dims, data_offsets: [first, end] }, name) => {
    const [type, Elements] = KINDS[dtype] ?? [];
    if (!type) throw new Error(`${name} is of the element type ${dtype}, which JavaScript lacks`);
    if (start + end > file.length) throw new Error(`the .safetensors file ends before ${name} does`);
    const bytes = new Uint8Array(file.subarray(start + first, start + end)); // aligned, as a copy is
    return { type, data: new Elements(bytes.buffer), dims };
  });
  return { about, fields, tensors, size: file.length - start };
}

class Training {
  #open; #ort; #options; #first; #sessions = {}; #last = Promise.resolve();

  constructor(manifest, open, { ort, options }, file, state) {
    [this.manifest, this.#open, this.#ort, this.#options] = [manifest, open, ort, options];
    this.#first = parse(file);
    const given = parse(state ?? file).tensors;
    /** Tensors by name: the weights, what the optimizer keeps, `step` and `seed`. */
    this.state = mapped(this.#first.tensors, (x, name) => {
      if (shown(x) === shown(given[name])) return this.#tensor(given[name]);
      throw new Error(`the state is of another network: ${name} is ${shown(given[name])}, not ${shown(x)}`);
    });
  }

  /** Trains on a batch, and gives the metrics of it before that: numbers by name. */
  async step(batch) {
    return mapped(await this.#trained("step", this.#feeds(batch)), ({ data }) => Number(data[0]));
  }

  /** Trains on batches of one size in one run, and gives the metrics of each, as `step` does. */
  async steps(batches) {
    const feeds = batches.map((batch) => this.#feeds(batch));
    if (!feeds.length) return [];
    const stacked = mapped(feeds[0], ({ type, dims, data: { length, constructor } }, name) => {
      const data = new constructor(feeds.length * length);
      for (const [i, { [name]: x }] of feeds.entries())
        if (`${x.dims}` === `${dims}`) data.set(x.data, i * length);
        else throw new Error(`the batches differ: ${name} is ${shown(x)} after ${shown(feeds[0][name])}`);
      return this.#tensor({ type, data, dims: [feeds.length, ...dims] });
    });
    const metrics = await this.#trained("steps", stacked);
    return feeds.map((_, i) => mapped(metrics, ({ data }) => Number(data[i])));
  }

  /** What the network predicts with the weights as they are now: tensors by name. */
  async predict(batch) {
    return this.#run("model", this.#feeds(batch, this.manifest.predict, 0));
  }

  /** The state as the bytes of a .safetensors file. */
  save() {
    const { about: { "nncompile.checksum": _, ...about }, fields, size } = this.#first;
    const header = new TextEncoder().encode(JSON.stringify({ __metadata__: about, ...fields }));
    const start = 8 + header.length + (-header.length & 7); // tensors begin at a multiple of 8
    const file = new Uint8Array(start + size).fill(32, 8, start);
    new DataView(file.buffer).setBigUint64(0, BigInt(start - 8), true);
    file.set(header, 8);
    for (const [name, { data_offsets: [first] }] of Object.entries(fields)) {
      const { buffer, byteOffset, byteLength } = this.state[name].data;
      file.set(new Uint8Array(buffer, byteOffset, byteLength), start + first);
    }
    return file;
  }

  #tensor({ type, data, dims }) { return new this.#ort.Tensor(type, data, dims); }

  #run(name, feeds, taken = (results) => results) { // each begins with the state that the last one leaves
    return (this.#last = this.#last.catch(() => {}).then(async () => {
      const file = this.manifest.files[name];
      if (!file) throw new Error(`this network has no file of ${name}`);
      const create = async () => this.#ort.InferenceSession.create(await this.#open(file), this.#options);
      const session = this.#sessions[name] ??= await create();
      const known = { ...this.state, ...feeds };
      return taken(await session.run(Object.fromEntries(session.inputNames.map((x) => [x, known[x]]))));
    }));
  }

  #trained(name, feeds) {
    return this.#run(name, feeds, (results) => {
      // What does not change, as the seed, has no next value, and stays.
      Object.assign(this.state, mapped(this.manifest.state, (next) => results[next]));
      return Object.fromEntries(this.manifest.metrics.map((metric) => [metric, results[metric]]));
    });
  }

  #feeds(batch, names = Object.keys(this.manifest.inputs), least = 1) { // NaN is the mean of nothing
    const unknown = Object.keys(batch).find((name) => !this.manifest.inputs[name]);
    if (unknown !== undefined) throw new Error(`there is no input ${unknown}, only ${names.join(", ")}`);
    const sizes = {}; // by the names that several inputs may share
    return Object.fromEntries(names.map((name) => {
      const [{ type, shape }, { data, dims = [], type: own = type }] = [this.manifest.inputs[name], batch[name] ?? {}];
      const fits = (size, i) => size === dims[i] || (typeof size === "string" && dims[i] >= least
        && (!/^[\p{L}\p{N}_]+$/u.test(size) || (sizes[size] ??= dims[i]) === dims[i]));
      if (own === type && data instanceof ARRAYS[type] && dims.length === shape.length && shape.every(fits))
        return [name, this.#tensor({ type, data, dims })];
      const expected = shape.map((size) => (size in sizes ? `${size} = ${sizes[size]}` : size)).join(", ");
      const some = least && dims.includes(0) ? ", of one example or more" : "";
      const got = data ? `${data.constructor.name}[${[...dims].join(", ")}]` : "no { data, dims }";
      throw new Error(`input ${name} must be ${type}[${expected}]${some}, got ${got}`);
    }));
  }
}
