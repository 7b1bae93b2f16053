// The Vercel AI SDK with its OpenAI-compatible provider, as an application would use it.
// usage: node aisdk.mjs <base URL>
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, cosineSimilarity, embed, embedMany, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { checker, rejected, timed } from "./check.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const [baseURL] = process.argv.slice(2);
const { version } = createRequire(import.meta.url)("ai/package.json");
const check = checker(`ai ${version}`);
const weir = createOpenAICompatible({ name: "weir", baseURL, apiKey: "unused", includeUsage: true, supportsStructuredOutputs: true });
const ask = (model, more = {}) => ({ model: weir(model), prompt: "hi", maxRetries: 0, ...more });
const quiet = { onError: () => {} };

const weather = (asked) => tool({
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false }),
  execute: ({ city }) => (asked.push(city), "7"),
});

await check("unary and streamed answers, with usage", async () => {
  const unary = await generateText(ask("echo", { prompt: "one two three" }));
  assert.equal(unary.text, "echo: one two three");
  assert.equal(unary.finishReason, "stop");
  const stream = streamText(ask("echo", { prompt: "one two three" }));
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, unary.text);
  assert.equal((await stream.usage).outputTokens, 4);
  assert.equal(unary.usage.outputTokens, 4);
});

await check("tools, unary", async () => {
  const asked = [];
  const result = await generateText(ask("tools", { tools: { weather: weather(asked) }, stopWhen: stepCountIs(2) }));
  assert.equal(result.text, "Bern has 7 degrees.");
  assert.deepEqual(asked, ["Bern", "Oslo"]);
});

await check("tools, streamed", async () => {
  const asked = [];
  const stream = streamText(ask("tools", { tools: { weather: weather(asked) }, stopWhen: stepCountIs(2) }));
  assert.equal(await stream.text, "Bern has 7 degrees.");
  assert.deepEqual(asked, ["Bern", "Oslo"]);
  assert.equal((await stream.steps).length, 2);
});

await check("structured output, unary and streamed", async () => {
  const output = Output.object({ schema: jsonSchema({
    type: "object", properties: { city: { type: "string" }, degrees: { type: "integer" } }, required: ["city", "degrees"], additionalProperties: false,
  }) });
  assert.deepEqual((await generateText(ask("structured", { output }))).output, { city: "Bern", degrees: 7 });
  assert.deepEqual(await streamText(ask("structured", { output })).output, { city: "Bern", degrees: 7 });
});

await check("a long stream with heartbeats", async () => {
  const stream = streamText(ask("slow"));
  assert.equal(await stream.text, "one two three");
  assert.equal(await stream.finishReason, "stop");
});

await check("an error before the first byte", async () => {
  const error = await rejected(() => generateText(ask("refused")));
  assert.ok(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, 400);
  assert.equal(error.data.error.code, "upstream_rejected");
});

await check("an error after the first byte", async () => {
  let seen = null, text = "";
  const stream = streamText(ask("cut", { onError: ({ error }) => (seen = error) }));
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, "one two");
  assert.ok(seen, "no error");
  assert.equal(await stream.finishReason, "error");
});

for (const [model, status, least] of [["limited", 429, 1000], ["busy", 503, 1000]]) {
  await check(`a ${status} is tried again when it says`, async () => {
    const [result, took] = await timed(generateText(ask(model, { prompt: `ai ${version}`, maxRetries: 2 })));
    assert.equal(result.text, "Hello again");
    assert.ok(took >= least, `after ${took} ms`);
  });
}

await check("an unknown model is an error, unary and streamed", async () => {
  const error = await rejected(() => generateText(ask("no-such-model")));
  assert.equal(error.statusCode, 404);
  let seen = null;
  await rejected(() => streamText(ask("no-such-model", { onError: ({ error }) => (seen = error) })).text);
  assert.equal(seen.statusCode, 404);
});

await check("text completions, unary and streamed", async () => {
  const model = weir.completionModel("echo");
  const unary = await generateText({ model, prompt: "one two", maxRetries: 0 });
  assert.match(unary.text, /^echo: /);
  assert.equal(await streamText({ model, prompt: "one two", maxRetries: 0 }).text, unary.text);
});

await check("embeddings", async () => {
  const model = weir.embeddingModel("echo");
  const { embeddings } = await embedMany({ model, values: ["the red house", "the red houses", "something else"], maxRetries: 0 });
  assert.equal(embeddings[0].length, 256);
  assert.ok(cosineSimilarity(embeddings[0], embeddings[1]) > cosineSimilarity(embeddings[0], embeddings[2]));
  assert.deepEqual((await embed({ model, value: "the red house", maxRetries: 0 })).embedding, embeddings[0]);
});
