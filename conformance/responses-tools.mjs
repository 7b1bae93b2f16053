// The Responses API with the OpenAI SDK for Node and a model server that speaks chat completions: tools, structured output
// and reasoning. usage: node responses-tools.mjs <base URL>
import assert from "node:assert/strict";
import OpenAI from "openai";
import { VERSION } from "openai/version";
import { checker } from "./check.mjs";

const [baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 80_000 });
const check = checker(`openai ${VERSION}`);
const as = "responses on a chat server:";

const tools = [{
  type: "function", name: "get_weather", strict: true,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
}];

await check(`${as} a tool call round trip, streamed`, async () => {
  const input = [{ role: "user", content: "what is the weather in Paris?" }];
  const stream = client.responses.stream({ model: "mock", input, tools });
  let args = "";
  stream.on("response.function_call_arguments.delta", (event) => (args += event.delta));
  const response = await stream.finalResponse();
  const [call] = response.output;
  assert.equal(call.type, "function_call");
  assert.equal(call.name, "get_weather");
  assert.equal(call.arguments, '{"city":"Paris"}');
  assert.equal(args, call.arguments);
  input.push(...response.output, { type: "function_call_output", call_id: call.call_id, output: "sunny" });
  const answer = await client.responses.create({ model: "mock", input, tools });
  assert.equal(answer.output_text, "The tool said: sunny");
});

await check(`${as} a tool call round trip by previous_response_id`, async () => {
  const first = await client.responses.create({ model: "mock", input: "what is the weather in Paris?", tools });
  const second = await client.responses.create({
    model: "mock", tools, previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: first.output[0].call_id, output: "rainy" }],
  });
  assert.equal(second.output_text, "The tool said: rainy");
});

await check(`${as} structured output`, async () => {
  const response = await client.responses.parse({
    model: "mock", input: "the weather in Paris",
    text: {
      format: {
        type: "json_schema", name: "weather", strict: true,
        schema: { type: "object", properties: { city: { type: "string" }, degrees: { type: "number" } }, required: ["city", "degrees"], additionalProperties: false },
      },
    },
  });
  assert.deepEqual(JSON.parse(response.output_text), { city: "Paris", degrees: 21 });
  assert.equal(response.text.format.type, "json_schema");
});

await check(`${as} reasoning as text, and as the summary that was asked for`, async () => {
  const open = await client.responses.create({ model: "mock", input: "think" });
  assert.deepEqual(open.output.map((item) => item.type), ["reasoning", "message"]);
  assert.equal(open.output[0].content[0].text, "Let me think. Yes.");
  assert.equal(open.output_text, "After some thought.");
  assert.equal(open.usage.output_tokens_details.reasoning_tokens, 2);
  const stream = client.responses.stream({ model: "mock", input: "think", reasoning: { effort: "low", summary: "auto" } });
  let summary = "";
  stream.on("response.reasoning_summary_text.delta", (event) => (summary += event.delta));
  const closed = await stream.finalResponse();
  assert.equal(summary, "Let me think. Yes.");
  assert.equal(closed.output[0].summary[0].text, summary);
});
