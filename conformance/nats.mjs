// The NATS client for Node, as a tenant's application would use it: an API key, and the inbox of the tenant.
// usage: node nats.mjs <nats://host:port> <API key> <tenant>; prints a line per check, with a tab and the reason if it failed.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, headers } from "@nats-io/transport-node";
import { checker } from "./check.mjs";

const [servers, token, tenant] = process.argv.slice(2);
const { version } = JSON.parse(readFileSync(new URL("node_modules/@nats-io/transport-node/package.json", import.meta.url)));
const check = checker(`@nats-io/transport-node ${version}`);
const open = (more = {}) => connect({ servers, token, inboxPrefix: `_INBOX_${tenant}`, ...more });

const chat = `llm.chat.${tenant}.echo`;
const question = (more = {}) => JSON.stringify({ messages: [{ role: "user", content: "one two three four five six seven" }], ...more });
const slow = (tokens) => question({ stream: true, x_echo: { interval_ms: 20, tokens } });
const until = { strategy: "sentinel", maxWait: 20_000 }; // an empty message ends it

function named(id) {
  const h = headers();
  h.set("Llm-Request-Id", id);
  return h;
}

// events yields what an answer holds: the index and the JSON of each event, and throws the error that it ends in.
async function* events(messages) {
  for await (const m of messages) {
    if (m.data.length === 0) return;
    const code = m.headers.get("Nats-Service-Error-Code");
    if (code) throw Object.assign(new Error(m.headers.get("Nats-Service-Error")), { status: Number(code), ...m.json().error });
    if (!m.headers.has("Llm-Frame")) continue; // a sign of life
    let index = Number(m.headers.get("Llm-Frame").split(" ")[3]);
    for (const line of m.string().split("\n")) yield { index: index++, id: m.headers.get("Llm-Request-Id"), event: JSON.parse(line) };
  }
  throw new Error("the answer has no end");
}

async function collect(messages) {
  const all = [];
  for await (const e of events(messages)) all.push(e);
  assert.deepEqual(all.map((e) => e.index), all.map((_, i) => all[0].index + i));
  return all;
}

const text = (all) => all.map((e) => e.event.choices[0]?.delta?.content ?? "").join("");

const nc = await open();

await check("unary", async () => {
  const m = await nc.request(chat, question(), { timeout: 80_000 });
  assert.match(m.json().choices[0].message.content, /seven/);
  assert.ok(m.headers.get("Llm-Request-Id"));
});

await check("a stream ends with the empty message", async () => {
  const all = await collect(await nc.requestMany(chat, question({ stream: true }), until));
  assert.match(text(all), /seven/);
  assert.ok(all.length > 3);
});

await check("an error has its headers and the error object", async () => {
  await assert.rejects(collect(await nc.requestMany(chat, "no JSON", until)), { status: 400, code: "invalid_json" });
  await assert.rejects(collect(await nc.requestMany(`llm.chat.${tenant}.none`, question({ stream: true }), until)), { status: 404, code: "model_not_found" });
});

await check("an answer cut with its connection is resumed on another", async () => {
  const id = "conformance-node-cut";
  const first = await open();
  const before = [];
  const answer = events(await first.requestMany(chat, slow(40), { ...until, headers: named(id) }));
  while (before.length < 5) before.push((await answer.next()).value);
  await first.close();
  const rest = await collect(await nc.requestMany(`llm.resume.${tenant}.${id}`, String(before.at(-1).index), until));
  const all = await collect(await nc.requestMany(`llm.resume.${tenant}.${id}`, "", until));
  assert.deepEqual([...before, ...rest], all);
  assert.ok(all.length >= 40 && all[0].index === 0 && all[0].id === id);
});

await check("the log of a request can be followed beside the answer", async () => {
  const id = "conformance-node-live";
  const live = nc.subscribe(`llm.replies.${tenant}.${id}`);
  await nc.flush();
  const all = await collect(await nc.requestMany(chat, slow(10), { ...until, headers: named(id) }));
  const seen = [];
  for await (const m of live) {
    assert.equal(m.headers.get("Nats-Stream"), "LLM_REPLIES");
    const [kind] = m.headers.get("Llm-Frame").split(" ");
    if (kind === "delta") seen.push(...m.string().split("\n").map((line) => JSON.parse(line)));
    if (kind === "end") break;
  }
  assert.deepEqual(seen, all.map((e) => e.event));
});

await check("cancel ends the answer with an error", async () => {
  const id = "conformance-node-cancel";
  const answer = events(await nc.requestMany(chat, slow(1000), { ...until, headers: named(id) }));
  await answer.next();
  const m = await nc.request(`llm.cancel.${tenant}.${id}`, "", { timeout: 80_000 });
  assert.equal(m.json().status, "cancelled");
  await assert.rejects(async () => { for await (const _ of answer); }, { code: "request_cancelled" });
});

await check("other tenants and JetStream are out of reach", async () => {
  for (const subject of ["llm.chat.other.echo", "$JS.API.INFO", `llm.chunks.${tenant}.x`]) {
    const closed = await open();
    await assert.rejects(closed.request(subject, question(), { timeout: 1000 }));
    await closed.close();
  }
  await assert.rejects(connect({ servers, token: token.slice(0, -1), reconnect: false }));
  await assert.rejects(connect({ servers, reconnect: false }));
});

await nc.close();
