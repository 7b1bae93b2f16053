// A page of HTTP over llama.cpp, as much of the OpenAI protocol as a conformance run needs: chat completions, streamed and
// unary, several at once, each ended when its caller leaves. Usage: server.mjs DIRECTORY. It writes its model there, prints
// its address when it is ready, and serves until it is ended. GET /stats tells what it has done.
import { createServer } from "node:http";
import { join } from "node:path";
import { getLlama } from "node-llama-cpp";
import { writeModel } from "./model.mjs";

const slots = 4;
const stats = { slots, running: 0, peak: 0, finished: 0, aborted: 0, tokens: 0 };

const file = join(process.argv[2], "noise.gguf");
writeModel(file);
// One thread: those of llama.cpp wait for each other in busy loops, which is slow beyond measure on a machine that has other work.
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({ sequences: slots, contextSize: 8192, threads: 1 });

// tokens are those of an answer, until it ends or the caller leaves; the engine stops where the loop does.
async function* tokens(prompt, options, left) {
  const sequence = context.getSequence();
  stats.peak = Math.max(stats.peak, ++stats.running);
  try {
    let count = 0;
    for await (const token of sequence.evaluate(prompt, {
      temperature: options.temperature ?? 1, seed: options.seed, yieldEogToken: options.ignoreEnd,
    })) {
      if (left.aborted) return;
      stats.tokens++;
      yield token;
      if (++count >= options.limit) break;
    }
    stats.finished++;
  } finally {
    if (left.aborted) stats.aborted++;
    stats.running--;
    await sequence.dispose();
  }
}

function promptOf(messages) {
  const text = ({ content }) => (typeof content === "string" ? content : content.map((part) => part.text ?? "").join("\n"));
  return model.tokenize(messages.map((m) => `${m.role}: ${text(m)}`).join("\n"));
}

async function chat(request, response, body) {
  const prompt = promptOf(body.messages);
  if (context.sequencesLeft === 0) return refuse(response, 503, "server_is_overloaded", "every slot is taken");
  const left = new AbortController();
  response.on("close", () => response.writableFinished || left.abort());
  const options = {
    temperature: body.temperature, seed: body.seed, ignoreEnd: body.ignore_eos ?? false, // as vLLM calls it
    limit: body.max_completion_tokens ?? body.max_tokens ?? 64,
  };
  const common = { id: `chatcmpl-${stats.tokens}`, created: Math.floor(Date.now() / 1000), model: body.model };
  const event = (members) => response.write(`data: ${JSON.stringify({ object: "chat.completion.chunk", ...common, ...members })}\n\n`);
  const choice = (delta, finish = null) => ({ choices: [{ index: 0, delta, finish_reason: finish }] });

  let text = "", count = 0;
  if (body.stream) {
    response.writeHead(200, { "content-type": "text/event-stream" });
    event(choice({ role: "assistant", content: "" }));
  }
  for await (const token of tokens(prompt, options, left.signal)) {
    const piece = model.detokenize([token]);
    text += piece;
    count++;
    if (body.stream && !event(choice({ content: piece }))) await drained(response, left.signal);
  }
  if (left.signal.aborted) return;
  const finish = count < options.limit ? "stop" : "length";
  const usage = { prompt_tokens: prompt.length, completion_tokens: count, total_tokens: prompt.length + count };
  if (!body.stream) {
    const message = { role: "assistant", content: text };
    return reply(response, 200, { object: "chat.completion", ...common, choices: [{ index: 0, message, finish_reason: finish }], usage });
  }
  event(choice({}, finish));
  if (body.stream_options?.include_usage) event({ choices: [], usage });
  response.end("data: [DONE]\n\n");
}

// drained waits for a caller that reads slowly.
function drained(response, left) {
  return new Promise((resolve) => {
    response.once("drain", resolve);
    left.addEventListener("abort", resolve, { once: true });
  });
}

function reply(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function refuse(response, status, code, message) {
  reply(response, status, { error: { message, type: "invalid_request_error", param: null, code } });
}

async function serve(request, response) {
  const parts = [];
  for await (const part of request) parts.push(part);
  switch (`${request.method} ${request.url}`) {
    case "GET /stats":
      return reply(response, 200, stats);
    case "GET /v1/models":
      return reply(response, 200, { object: "list", data: [{ id: "noise", object: "model" }] });
    case "POST /v1/chat/completions":
      return chat(request, response, JSON.parse(Buffer.concat(parts)));
  }
  refuse(response, 404, "not_found", "there is no such endpoint");
}

const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    console.error(error);
    response.headersSent ? response.destroy() : refuse(response, 500, "internal", "the engine failed");
  });
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
