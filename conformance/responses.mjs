// The Responses API with the OpenAI SDK for Node and the echo model. usage: node responses.mjs <base URL>
import assert from "node:assert/strict";
import OpenAI from "openai";
import { VERSION } from "openai/version";
import { checker, rejected } from "./check.mjs";

const [baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 80_000 });
const check = checker(`openai ${VERSION}`);
const as = "responses:";

const input = "one two three four five six seven eight nine ten";
const slow = { model: "echo", input, x_echo: { interval_ms: 20, tokens: 60 } };

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

let whole;

await check(`${as} unary`, async () => {
  whole = await client.responses.create({ model: "echo", input, instructions: "be brief", metadata: { k: "v" } });
  assert.match(whole.output_text, /seven/);
  assert.equal(whole.status, "completed");
  assert.equal(whole.instructions, "be brief");
  assert.deepEqual(whole.metadata, { k: "v" });
  assert.ok(whole.usage.output_tokens > 0);
  assert.ok(whole._request_id, "no request id");
});

await check(`${as} retrieve`, async () => {
  const again = await client.responses.retrieve(whole.id);
  assert.equal(JSON.stringify(again), JSON.stringify(whole));
});

await check(`${as} raw stream`, async () => {
  const events = await collect(await client.responses.create({ model: "echo", input, stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, i) => i));
  const text = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join("");
  assert.equal(text, whole.output_text);
  assert.deepEqual(
    events.map((event) => event.type).filter((type) => type !== "response.output_text.delta"),
    ["created", "in_progress", "output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done", "completed"]
      .map((type) => `response.${type}`),
  );
});

await check(`${as} stream helper`, async () => {
  const stream = client.responses.stream({ model: "echo", input });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  const response = await stream.finalResponse();
  assert.equal(text, whole.output_text);
  assert.equal(response.output_text, whole.output_text);
});

await check(`${as} background, poll, and a stream from the middle`, async () => {
  let response = await client.responses.create({ ...slow, background: true });
  assert.equal(response.status, "queued");
  const events = await collect(await client.responses.retrieve(response.id, { stream: true }));
  const types = events.map((event) => event.type);
  assert.deepEqual(types.slice(0, 3), ["response.created", "response.queued", "response.in_progress"]);
  assert.equal(types.at(-1), "response.completed");
  while (response.status === "queued" || response.status === "in_progress") {
    response = await client.responses.retrieve(response.id);
  }
  assert.equal(response.status, "completed");
  assert.ok(events.length > 60, `only ${events.length} events`);
  for (const after of [0, 7, events.length - 2]) {
    const tail = await collect(await client.responses.retrieve(response.id, { stream: true, starting_after: after }));
    assert.deepEqual(tail, events.slice(after + 1));
  }
  const helped = await client.responses.stream({ response_id: response.id, starting_after: 5 }).finalResponse();
  assert.equal(helped.output_text, response.output_text);
});

await check(`${as} a background stream that is left and taken up again`, async () => {
  const stream = await client.responses.create({ ...slow, background: true, stream: true });
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (events.length === 10) break;
  }
  const { id } = events[0].response;
  const rest = await collect(await client.responses.retrieve(id, { stream: true, starting_after: 9 }));
  assert.equal(rest[0].sequence_number, 10);
  assert.equal(rest.at(-1).type, "response.completed");
  const deltas = [...events, ...rest].filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
  assert.equal(deltas.join(""), rest.at(-1).response.output[0].content[0].text);
});

await check(`${as} cancel, twice`, async () => {
  const { id } = await client.responses.create({ ...slow, background: true });
  for (let i = 0; i < 2; i++) {
    const response = await client.responses.cancel(id);
    assert.equal(response.status, "cancelled");
  }
  assert.equal((await client.responses.retrieve(id)).status, "cancelled");
});

await check(`${as} delete`, async () => {
  const { id } = await client.responses.create({ model: "echo", input });
  await client.responses.delete(id);
  const error = await rejected(() => client.responses.retrieve(id));
  assert.ok(error instanceof OpenAI.NotFoundError, String(error));
});

await check(`${as} input items, and a conversation by previous_response_id`, async () => {
  const next = await client.responses.create({ model: "echo", input: "and now?", previous_response_id: whole.id });
  assert.equal(next.previous_response_id, whole.id);
  assert.equal(next.output_text, "echo: and now?");
  const items = [];
  for await (const item of client.responses.inputItems.list(next.id, { order: "asc", limit: 2 })) items.push(item);
  assert.deepEqual(items.map((item) => item.role), ["user", "assistant", "user"]);
  assert.equal(items[1].content[0].text, whole.output_text);
});

await check(`${as} errors before and after the first token`, async () => {
  const unknown = await rejected(() => client.responses.create({ model: "no-such-model", input }));
  assert.ok(unknown instanceof OpenAI.NotFoundError, String(unknown));
  assert.equal(unknown.code, "model_not_found");
  const previous = await rejected(() => client.responses.create({ model: "echo", input, previous_response_id: "resp_none" }));
  assert.equal(previous.code, "previous_response_not_found");
  const hosted = await rejected(() => client.responses.create({ model: "echo", input, tools: [{ type: "web_search" }] }));
  assert.ok(hosted instanceof OpenAI.BadRequestError, String(hosted));
  assert.equal(hosted.param, "tools[0]");
  const events = await collect(await client.responses.create({ model: "echo", input, stream: true, x_echo: { cut: 3 } }));
  assert.equal(events.at(-1).type, "response.failed");
  assert.ok(events.at(-1).response.error.message, "no message");
});

await check(`${as} max_output_tokens makes an incomplete response`, async () => {
  const response = await client.responses.create({ model: "echo", input, max_output_tokens: 3 });
  assert.equal(response.status, "incomplete");
  assert.deepEqual(response.incomplete_details, { reason: "max_output_tokens" });
});

await check(`${as} Idempotency-Key`, async () => {
  const options = { headers: { "Idempotency-Key": "conformance-responses" } };
  const one = await client.responses.create({ model: "echo", input }, options);
  const two = await client.responses.create({ model: "echo", input }, options);
  assert.equal(two.id, one.id);
  const error = await rejected(() => client.responses.create({ model: "echo", input: "something else" }, options));
  assert.equal(error.code, "idempotency_mismatch");
});
