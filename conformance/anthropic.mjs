// The Anthropic SDK for Node, as an application would use it: only the base URL is ours.
// usage: node anthropic.mjs <base URL> <model>; prints a line per check, with a tab and the reason if it failed.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { VERSION } from "@anthropic-ai/sdk/version";

const [baseURL, model] = process.argv.slice(2);
const client = new Anthropic({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 80_000 });
const native = model === "claude";

const question = (text, more = {}) => ({ model, max_tokens: 2048, messages: [{ role: "user", content: text }], ...more });
const tools = [{ name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } }];

async function check(name, body) {
  const line = `@anthropic-ai/sdk ${VERSION} on Node ${process.versions.node}, ${model}: ${name}`;
  try {
    await body();
    console.log(line);
  } catch (error) {
    console.log(`${line}\t${String(error?.message ?? error).replaceAll(/\s+/g, " ")}`);
  }
}

async function rejected(request) {
  try {
    const answer = await request();
    if (answer?.[Symbol.asyncIterator]) for await (const _ of answer);
  } catch (error) {
    return error;
  }
  assert.fail("no error");
}

// collect reads a raw stream the way its documentation does.
async function collect(stream) {
  const seen = { text: "", input: "", types: new Set(), stop: null, usage: null };
  for await (const event of stream) {
    seen.types.add(event.type);
    if (event.type === "content_block_delta") {
      seen.text += event.delta.text ?? "";
      seen.input += event.delta.partial_json ?? "";
    }
    if (event.type === "message_delta") {
      seen.stop = event.delta.stop_reason;
      seen.usage = event.usage;
    }
  }
  return seen;
}

await check("unary", async () => {
  const message = await client.messages.create(question("some words"));
  assert.equal(message.type, "message");
  assert.equal(message.role, "assistant");
  assert.equal(message.model, model);
  assert.deepEqual(message.content.map((block) => block.text), ["You said it"]);
  assert.equal(message.stop_reason, "end_turn");
  assert.equal(message.usage.input_tokens, 11);
  assert.equal(message.usage.output_tokens, 5);
  assert.ok(message._request_id, "no request id");
});

await check("raw stream", async () => {
  const seen = await collect(await client.messages.create(question("some words", { stream: true })));
  assert.equal(seen.text, "You said it");
  assert.equal(seen.stop, "end_turn");
  assert.equal(seen.usage.output_tokens, 5);
  for (const type of ["message_start", "content_block_start", "content_block_stop", "message_stop"]) assert.ok(seen.types.has(type), type);
});

await check("stream helper", async () => {
  const stream = client.messages.stream(question("some words"));
  let deltas = "";
  stream.on("text", (delta) => (deltas += delta));
  const message = await stream.finalMessage();
  assert.equal(deltas, "You said it");
  assert.equal(await stream.finalText(), "You said it");
  assert.equal(message.stop_reason, "end_turn");
  assert.equal(message.usage.input_tokens, 11);
});

await check("a call of a tool, and its result", async () => {
  const whole = await client.messages.create(question("SAY tools", { tools }));
  const helped = await client.messages.stream(question("SAY tools", { tools })).finalMessage();
  const raw = await collect(await client.messages.create(question("SAY tools", { tools, stream: true })));
  assert.deepEqual(JSON.parse(raw.input), { city: "Zürich" });
  for (const message of [whole, helped]) {
    const [text, call] = message.content;
    assert.equal(message.stop_reason, "tool_use");
    assert.equal(text.text, "You said it");
    assert.deepEqual({ ...call, caller: undefined }, { ...call, caller: undefined, type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Zürich" } });
    const messages = [
      { role: "user", content: "SAY tools" }, { role: "assistant", content: message.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "it rains" }] },
    ];
    const next = await client.messages.create({ ...question(""), messages, tools });
    assert.equal(next.stop_reason, "end_turn");
  }
});

await check("count_tokens", async () => {
  const { input_tokens } = await client.messages.countTokens({ model, messages: [{ role: "user", content: "some words" }] });
  if (native) assert.equal(input_tokens, 42);
  else assert.ok(input_tokens > 0);
});

if (native) {
  await check("thinking, its signature, cache_control and betas", async () => {
    const options = { headers: { "anthropic-beta": "conformance-2026-01-01" } };
    const thinking = { type: "enabled", budget_tokens: 1024 };
    const content = [{ type: "text", text: "SAY think", cache_control: { type: "ephemeral" } }];
    const message = await client.messages.stream({ ...question(content), thinking }, options).finalMessage();
    const [thought, text] = message.content;
    assert.equal(thought.thinking, "Hm, hm");
    assert.ok(thought.signature.length > 20, "no signature");
    assert.equal(text.text, "You said it");
    const messages = [{ role: "user", content }, { role: "assistant", content: message.content }, { role: "user", content: "TURN 2" }];
    await client.messages.create({ ...question(""), messages, thinking }, options);
  });
}

for (const stream of [false, true]) {
  const how = stream ? "streamed" : "unary";
  await check(`an unknown model, ${how}`, async () => {
    const error = await rejected(() => client.messages.create({ ...question("x"), model: "no-such-model", stream }));
    assert.ok(error instanceof Anthropic.NotFoundError, String(error));
    assert.equal(error.type, "not_found_error");
    assert.equal(error.errorCode, "model_not_found");
    assert.ok(error.requestID, "no request id");
  });
  await check(`529 before the first byte, ${how}`, async () => {
    const error = await rejected(() => client.messages.create(question("SAY overloaded", { stream })));
    assert.equal(error.status, 529);
    assert.equal(error.type, "overloaded_error");
    assert.equal(error.headers.get("retry-after"), "3");
  });
  await check(`temperature is not in version 2026-10-21, ${how}`, async () => {
    const error = await rejected(() => client.messages.create(question("x", { stream, temperature: 1 })));
    assert.ok(error instanceof Anthropic.BadRequestError, String(error));
    assert.match(error.apiMessage, /temperature/);
  });
}

for (const [scenario, type] of [["broken", "overloaded_error"], ["cut", "api_error"]]) {
  await check(`${scenario} after the first byte, raw and helper`, async () => {
    let text = "";
    const error = await rejected(async () => {
      for await (const event of await client.messages.create(question(`SAY ${scenario}`, { stream: true }))) text += event.delta?.text ?? "";
    });
    assert.ok(error instanceof Anthropic.APIError, String(error));
    assert.equal(error.type, type);
    assert.equal(text, "You ");
    const helped = await rejected(() => client.messages.stream(question(`SAY ${scenario}`)).finalMessage());
    assert.equal(helped.type, type);
  });
}

await check("leaving a stream early", async () => {
  const stream = await client.messages.create(question("some words", { stream: true }));
  for await (const event of stream) {
    assert.equal(event.type, "message_start");
    break;
  }
  assert.ok(stream.controller.signal.aborted);
});

await check("models.list", async () => {
  const ids = [];
  for await (const entry of client.models.list()) ids.push(entry.id);
  assert.ok(ids.includes(model), `got ${ids}`);
});

await check("a base URL that ends in /v1 is a 404 that says so", async () => {
  const lost = new Anthropic({ baseURL: `${baseURL}/v1`, apiKey: "unused", maxRetries: 0 });
  const error = await rejected(() => lost.messages.create(question("x")));
  assert.ok(error instanceof Anthropic.NotFoundError, String(error));
  assert.match(error.apiMessage, /must not end in \/v1/);
});
