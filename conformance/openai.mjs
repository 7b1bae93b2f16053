// The OpenAI SDK for Node, as an application would use it: only the base URL is ours.
// usage: node openai.mjs <openai|openai-6> <base URL>; prints a line per check, with a tab and the reason if it failed.
import assert from "node:assert/strict";

const [sdk, baseURL] = process.argv.slice(2);
const { default: OpenAI } = await import(sdk);
const { VERSION } = await import(`${sdk}/version`);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 80_000 });

const prompt = "one two three four five six seven eight nine ten";
const question = (model, content = prompt) => ({ model, messages: [{ role: "user", content }] });

const slow = { ...question("echo"), x_echo: { interval_ms: 20, tokens: 200 } };

async function check(name, body) {
  const line = `openai ${VERSION} on Node ${process.versions.node}: ${name}`;
  try {
    await body();
    console.log(line);
  } catch (error) {
    console.log(`${line}\t${String(error?.message ?? error).replaceAll(/\s+/g, " ")}`);
  }
}

let whole;

await check("unary", async () => {
  const completion = await client.chat.completions.create(question("echo"));
  const [choice] = completion.choices;
  whole = choice.message.content;
  assert.match(whole, /seven/);
  assert.equal(choice.finish_reason, "stop");
  assert.ok(completion.usage.completion_tokens > 0);
  assert.ok(completion._request_id, "no request id");
});

await check("raw stream agrees with unary", async () => {
  const stream = await client.chat.completions.create({
    ...question("echo"), stream: true, stream_options: { include_usage: true },
  });
  let text = "", finish = null, usage = null, chunks = 0;
  for await (const chunk of stream) {
    chunks++;
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole);
  assert.equal(finish, "stop");
  assert.ok(chunks >= 3, `only ${chunks} chunks`);
  assert.ok(usage?.total_tokens > 0, "no usage although it was asked for");
});

await check("stream without include_usage has none", async () => {
  const stream = await client.chat.completions.create({ ...question("echo"), stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.choices.length > 0, `a chunk without choices: ${JSON.stringify(chunk)}`);
    assert.ok(chunk.usage == null, "usage although it was not asked for");
  }
});

await check("stream helper", async () => {
  const stream = client.chat.completions.stream(question("echo"));
  let deltas = "";
  stream.on("content", (delta) => (deltas += delta));
  const completion = await stream.finalChatCompletion();
  assert.equal(deltas, whole);
  assert.equal(completion.choices[0].message.content, whole);
  assert.equal(completion.choices[0].message.role, "assistant");
  assert.equal(completion.choices[0].finish_reason, "stop");
});

await check("leaving a stream early", async () => {
  const stream = await client.chat.completions.create({ ...slow, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.choices);
    break;
  }
  assert.ok(stream.controller.signal.aborted);
});

await check("models.list", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("echo"), `got ${ids}`);
});

async function rejected(request) {
  try {
    const answer = await request();
    if (answer?.[Symbol.asyncIterator]) for await (const _ of answer);
  } catch (error) {
    return error;
  }
  assert.fail("no error");
}

for (const stream of [false, true]) {
  const how = stream ? "streamed" : "unary";
  await check(`unknown model, ${how}`, async () => {
    const error = await rejected(() => client.chat.completions.create({ ...question("no-such-model"), stream }));
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, "model_not_found");
    assert.equal(error.param, "model");
    assert.equal(error.type, "invalid_request_error");
    assert.ok(error.requestID, "no request id");
  });
}

await check("a failure before the first token has its status, and says when to retry", async () => {
  const x_echo = { fail: "rate_limit_exceeded", retry_after_ms: 1500 };
  const error = await rejected(() => client.chat.completions.create({ ...question("echo"), stream: true, x_echo }));
  assert.ok(error instanceof OpenAI.RateLimitError, String(error));
  assert.equal(error.code, "rate_limit_exceeded");
  assert.equal(error.headers.get("retry-after"), "2");
  assert.equal(error.headers.get("retry-after-ms"), "1500");
});

await check("an answer that is cut ends in an error, raw and helper", async () => {
  const cut = { ...question("echo"), x_echo: { cut: 3 } };
  let text = "";
  const error = await rejected(async () => {
    const stream = await client.chat.completions.create({ ...cut, stream: true });
    for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  });
  assert.ok(error instanceof OpenAI.APIError, String(error));
  assert.ok(error.code, "no code");
  assert.ok(whole.startsWith(text) && text !== "" && text !== whole, `read ${JSON.stringify(text)}`);
  const helped = await rejected(() => client.chat.completions.stream(cut).finalChatCompletion());
  assert.ok(helped instanceof OpenAI.APIError, String(helped));
});

await check("empty messages", async () => {
  const error = await rejected(() => client.chat.completions.create({ model: "echo", messages: [] }));
  assert.ok(error instanceof OpenAI.BadRequestError, String(error));
  assert.equal(error.param, "messages");
});

await check("wrong path is a 404 with an error object", async () => {
  const lost = new OpenAI({ baseURL: baseURL.replace("/v1", ""), apiKey: "unused", maxRetries: 0 });
  const error = await rejected(() => lost.chat.completions.create(question("echo")));
  assert.ok(error instanceof OpenAI.NotFoundError, String(error));
  assert.ok(error.code, "no code");
});

await check("Idempotency-Key: one answer, and another body is 422 that is not retried", async () => {
  const options = { headers: { "Idempotency-Key": `conformance-${sdk}` }, maxRetries: 2 };
  const one = await client.chat.completions.create(question("echo"), options);
  const two = await client.chat.completions.create(question("echo"), options);
  assert.equal(two.id, one.id);
  assert.equal(two._request_id, one._request_id);
  const error = await rejected(() => client.chat.completions.create(question("echo", "something else"), options));
  assert.equal(error.status, 422);
  assert.equal(error.code, "idempotency_mismatch");
});
