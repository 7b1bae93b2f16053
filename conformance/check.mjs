// Each check prints a line: its name, and after a tab the reason if it failed. The Go program counts the lines.
import assert from "node:assert/strict";

// checker makes the function that runs checks of one client.
export const checker = (client) => async (name, body) => {
  const line = `${client} on Node ${process.versions.node}: ${name}`;
  try {
    await body();
    console.log(line);
  } catch (error) {
    console.log(`${line}\t${String(error?.message ?? error).replaceAll(/\s+/g, " ")}`);
  }
};

// rejected returns the error that a request, or the reading of its stream, ends in.
export async function rejected(request) {
  try {
    const answer = await request();
    if (answer?.[Symbol.asyncIterator]) for await (const _ of answer);
  } catch (error) {
    return error;
  }
  assert.fail("no error");
}

// timed returns what a promise gives and how many milliseconds that took.
export async function timed(promise) {
  const began = performance.now();
  return [await promise, performance.now() - began];
}
