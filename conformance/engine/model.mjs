// Writes a llama of random weights as GGUF v3: an engine loads it, tokenises and samples as ever, and what it says is noise.
// The layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
import { writeFileSync } from "node:fs";

const words = ("the a of to and in is it you that he was for on are with as his they be at one have this from or by hot but " +
  "some what there we can out other were all your when up use how said each she which do their time if will way about many " +
  "then them would write like so these her long make thing see him two has look more day could go come did my no most who " +
  "over know than call first people down side been now find water river weir dam stream").split(" ");

const types = { u32: 4, i32: 5, f32: 6, string: 8, array: 9 };

// bytes gathers little-endian values.
class Bytes {
  parts = [];
  length = 0;
  add(buffer) {
    this.parts.push(buffer);
    this.length += buffer.length;
    return this;
  }
  u32(v) { const b = Buffer.alloc(4); b.writeUInt32LE(v); return this.add(b); }
  i32(v) { const b = Buffer.alloc(4); b.writeInt32LE(v); return this.add(b); }
  u64(v) { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(v)); return this.add(b); }
  f32(v) { const b = Buffer.alloc(4); b.writeFloatLE(v); return this.add(b); }
  string(v) { const b = Buffer.from(v); return this.u64(b.length).add(b); }
  pad(to) { return this.add(Buffer.alloc((to - this.length % to) % to)); }
  whole() { return Buffer.concat(this.parts); }
}

// random is mulberry32, so that every machine writes the same model.
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function vocabulary() {
  const tokens = ["<unk>", "<s>", "</s>"], kinds = [2, 3, 3]; // unknown, control
  for (let i = 0; i < 256; i++) tokens.push(`<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`), kinds.push(6); // bytes
  for (const word of [...words.map((w) => "\u2581" + w), ..."abcdefghijklmnopqrstuvwxyz", "\u2581"]) tokens.push(word), kinds.push(1);
  return { tokens, kinds };
}

function metadata({ dim, hidden, layers, heads, context }) {
  const { tokens, kinds } = vocabulary();
  const kv = new Bytes();
  let count = 0;
  const put = (key, type, write) => { count++; kv.string(key).u32(types[type]); write(kv); };
  const u32 = (key, v) => put(key, "u32", (b) => b.u32(v));
  const text = (key, v) => put(key, "string", (b) => b.string(v));
  const list = (key, type, values) => put(key, "array", (b) => { b.u32(types[type]).u64(values.length); for (const v of values) b[type](v); });
  text("general.architecture", "llama");
  text("general.name", "noise");
  u32("general.alignment", 32);
  u32("llama.context_length", context);
  u32("llama.embedding_length", dim);
  u32("llama.block_count", layers);
  u32("llama.feed_forward_length", hidden);
  u32("llama.attention.head_count", heads);
  u32("llama.attention.head_count_kv", heads);
  u32("llama.rope.dimension_count", dim / heads);
  u32("llama.vocab_size", tokens.length);
  put("llama.attention.layer_norm_rms_epsilon", "f32", (b) => b.f32(1e-5));
  text("tokenizer.ggml.model", "llama");
  list("tokenizer.ggml.tokens", "string", tokens);
  list("tokenizer.ggml.scores", "f32", tokens.map((_, i) => -i));
  list("tokenizer.ggml.token_type", "i32", kinds);
  u32("tokenizer.ggml.bos_token_id", 1);
  u32("tokenizer.ggml.eos_token_id", 2);
  u32("tokenizer.ggml.unknown_token_id", 0);
  return { kv, count, vocabulary: tokens.length };
}

function tensors({ dim, hidden, layers }, vocabulary) {
  const all = [["token_embd.weight", dim, vocabulary], ["output_norm.weight", dim], ["output.weight", dim, vocabulary]];
  for (let i = 0; i < layers; i++) {
    const p = `blk.${i}.`;
    all.push([p + "attn_norm.weight", dim], [p + "attn_q.weight", dim, dim], [p + "attn_k.weight", dim, dim], [p + "attn_v.weight", dim, dim],
      [p + "attn_output.weight", dim, dim], [p + "ffn_norm.weight", dim], [p + "ffn_gate.weight", dim, hidden], [p + "ffn_up.weight", dim, hidden],
      [p + "ffn_down.weight", hidden, dim]);
  }
  return all;
}

// weights are 1 for what scales, and noise for what mixes.
function weights(name, size, next) {
  const values = new Float32Array(size);
  if (name.includes("norm")) return values.fill(1);
  for (let i = 0; i < size; i++) values[i] = 0.25 * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return values;
}

// writeModel writes the model to a file.
export function writeModel(file, shape = { dim: 128, hidden: 256, layers: 4, heads: 4, context: 8192 }) {
  const { kv, count, vocabulary } = metadata(shape);
  const info = new Bytes(), data = new Bytes(), next = random(7);
  const list = tensors(shape, vocabulary);
  for (const [name, ...dims] of list) {
    info.string(name).u32(dims.length);
    for (const d of dims) info.u64(d);
    info.u32(0).u64(data.length); // type 0 is f32
    data.add(Buffer.from(weights(name, dims.reduce((a, b) => a * b), next).buffer)).pad(32);
  }
  const head = new Bytes().add(Buffer.from("GGUF")).u32(3).u64(list.length).u64(count).add(kv.whole()).add(info.whole()).pad(32);
  writeFileSync(file, Buffer.concat([head.whole(), data.whole()]));
}
