// The OpenAI SDK for Node against models that a mock plays: what a model server may answer, and what an application sees.
// usage: node scripted.mjs <openai|openai-6> <base URL>
import assert from "node:assert/strict";
import { checker, rejected, timed } from "./check.mjs";

const [sdk, baseURL] = process.argv.slice(2);
const { default: OpenAI } = await import(sdk);
const { VERSION } = await import(`${sdk}/version`);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 80_000 });
const check = checker(`openai ${VERSION}`);

const question = (model, content = "hi") => ({ model, messages: [{ role: "user", content }] });
const tools = [{
  type: "function",
  function: { name: "weather", strict: true, parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false } },
}];
const calls = [["call_1", { city: "Bern" }], ["call_2", { city: "Oslo" }]];
const called = (message) => message.tool_calls.map((call) => [call.id, JSON.parse(call.function.arguments)]);

await check("tool calls, unary", async () => {
  const completion = await client.chat.completions.create({ ...question("tools"), tools });
  assert.deepEqual(called(completion.choices[0].message), calls);
  assert.equal(completion.choices[0].finish_reason, "tool_calls");
});

await check("tool calls, raw stream", async () => {
  const stream = await client.chat.completions.create({ ...question("tools"), tools, stream: true });
  const heard = [];
  for await (const chunk of stream) {
    for (const delta of chunk.choices[0]?.delta?.tool_calls ?? []) {
      assert.ok(Number.isInteger(delta.index), `a delta without an index: ${JSON.stringify(delta)}`);
      heard[delta.index] ??= { id: delta.id, arguments: "" };
      heard[delta.index].arguments += delta.function.arguments;
    }
  }
  assert.deepEqual(heard.map((call) => [call.id, JSON.parse(call.arguments)]), calls);
});

await check("tool calls, stream helper", async () => {
  const stream = client.chat.completions.stream({ ...question("tools"), tools });
  const done = [];
  stream.on("tool_calls.function.arguments.done", (event) => done.push(event.name));
  const completion = await stream.finalChatCompletion();
  assert.deepEqual(called(completion.choices[0].message), calls);
  assert.equal(completion.choices[0].message.role, "assistant");
  assert.deepEqual(done, ["weather", "weather"]);
});

await check("tools that are run, stream helper", async () => {
  const asked = [];
  const runner = client.chat.completions.runTools({
    ...question("tools"), stream: true,
    tools: [{ type: "function", function: {
      ...tools[0].function, parse: JSON.parse, function: ({ city }) => (asked.push(city), "7"),
    } }],
  });
  assert.equal(await runner.finalContent(), "Bern has 7 degrees.");
  assert.deepEqual(asked, ["Bern", "Oslo"]);
});

const response_format = { type: "json_schema", json_schema: { name: "weather", strict: true, schema: {
  type: "object", properties: { city: { type: "string" }, degrees: { type: "integer" } }, required: ["city", "degrees"], additionalProperties: false,
} } };

await check("structured output, unary and stream helper", async () => {
  const completion = await client.chat.completions.create({ ...question("structured"), response_format });
  assert.deepEqual(JSON.parse(completion.choices[0].message.content), { city: "Bern", degrees: 7 });
  const streamed = await client.chat.completions.stream({ ...question("structured"), response_format }).finalChatCompletion();
  assert.deepEqual(JSON.parse(streamed.choices[0].message.content), { city: "Bern", degrees: 7 });
});

await check("a long stream with heartbeats, raw and helper", async () => {
  const stream = await client.chat.completions.create({ ...question("slow"), stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, "one two three");
  const completion = await client.chat.completions.stream(question("slow")).finalChatCompletion();
  assert.equal(completion.choices[0].message.content, "one two three");
});

for (const stream of [false, true]) {
  await check(`an error before the first byte, ${stream ? "streamed" : "unary"}`, async () => {
    const error = await rejected(() => client.chat.completions.create({ ...question("refused"), stream }));
    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.code, "upstream_rejected");
    assert.equal(error.param, "voice");
    assert.match(error.message, /no such voice/);
    assert.match(error.requestID, /^req_/);
  });
}

await check("an error after the first byte, raw and helper", async () => {
  let text = "";
  const error = await rejected(async () => {
    const stream = await client.chat.completions.create({ ...question("cut"), stream: true });
    for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  });
  assert.equal(text, "one two");
  assert.ok(error instanceof OpenAI.APIError, String(error));
  assert.equal(error.code, "upstream_error");
  assert.doesNotMatch(error.message, /CUDA/);
  const helped = await rejected(() => client.chat.completions.stream(question("cut")).finalChatCompletion());
  assert.equal(helped.code, "upstream_error");
});

for (const [model, status, least] of [["limited", 429, 1000], ["busy", 503, 1000]]) {
  await check(`a ${status} is tried again when it says`, async () => {
    const [completion, took] = await timed(client.chat.completions.create(question(model, `${sdk} ${VERSION}`), { maxRetries: 2 }));
    assert.equal(completion.choices[0].message.content, "Hello again");
    assert.ok(took >= least, `after ${took} ms`);
  });
}

await check("completions, unary and streamed", async () => {
  const body = { model: "echo", prompt: ["one two", "three"], max_tokens: 2 };
  const completion = await client.completions.create(body);
  assert.deepEqual(completion.choices.map((c) => [c.index, c.text, c.finish_reason]), [[0, "echo: one ", "length"], [1, "echo: three", "stop"]]);
  assert.equal(completion.object, "text_completion");
  const texts = ["", ""];
  let usage = null;
  for await (const chunk of await client.completions.create({ ...body, stream: true, stream_options: { include_usage: true } })) {
    for (const choice of chunk.choices) texts[choice.index] += choice.text;
    usage = chunk.usage ?? usage;
  }
  assert.deepEqual(texts, ["echo: one ", "echo: three"]);
  assert.equal(usage.completion_tokens, 4);
});

await check("embeddings: base64, which is the default, and float are the same vectors", async () => {
  const input = ["one two", "three"];
  const { data: packed } = await client.embeddings.create({ model: "echo", input, dimensions: 16 });
  const { data: plain, usage } = await client.embeddings.create({ model: "echo", input, dimensions: 16, encoding_format: "float" });
  assert.equal(packed.length, 2);
  assert.equal(packed[0].embedding.length, 16);
  assert.deepEqual(packed.map((d) => Array.from(d.embedding, Math.fround)), plain.map((d) => d.embedding.map(Math.fround)));
  assert.ok(usage.prompt_tokens > 0);
  const converted = await client.embeddings.create({ model: "plain", input: "a" });
  assert.deepEqual(Array.from(converted.data[0].embedding), [1, -2.5]);
});

await check("models.retrieve, also of a name with a slash", async () => {
  for (const id of ["echo", "org/slashed"]) assert.equal((await client.models.retrieve(id)).id, id);
  const error = await rejected(() => client.models.retrieve("org/none"));
  assert.equal(error.code, "model_not_found");
});

await check("the headers that SDKs read", async () => {
  const { data, response } = await client.chat.completions.create(question("plain"), { headers: { "Idempotency-Key": `headers-${sdk}` } }).withResponse();
  assert.equal(data.choices[0].message.content, "Hello world");
  const h = response.headers;
  assert.equal(h.get("x-request-id"), data._request_id);
  assert.equal(h.get("idempotency-key"), `headers-${sdk}`);
  assert.equal(h.get("idempotent-replayed"), "false");
  assert.ok(Number(h.get("openai-processing-ms")) >= 0);
  assert.equal(h.get("x-ratelimit-limit-requests"), "2000"); // those of one address are the nearest limit
  assert.ok(Number(h.get("x-ratelimit-remaining-requests")) < 2000);
});
