// Clients for Node that others wrote. Each chats, streams, and goes away in the middle of an answer that has no end.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const [url, key, model] = process.argv.slice(2);
const messages = [{ role: "user", content: "hello there" }];
const endless = [{ role: "user", content: "endless" }];

function check(name, whole, pieces) {
  assert.equal(whole, "echo: hello there", name);
  assert.equal(pieces.join(""), "echo: hello there", name);
  assert.ok(pieces.length >= 3, `${name}: ${JSON.stringify(pieces)}`);
}

async function checkOpenai() {
  const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 30_000 });
  const known = [];
  for await (const found of client.models.list()) known.push(found.id);
  assert.ok(known.includes(model));
  const whole = await client.chat.completions.create({ model, messages });
  const pieces = [];
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    const text = chunk.choices[0]?.delta?.content;
    if (text) pieces.push(text);
  }
  check("openai, chat", whole.choices[0].message.content, pieces);

  const response = await client.responses.create({ model, input: "hello there" });
  const deltas = [];
  for await (const event of await client.responses.create({ model, input: "hello there", stream: true })) {
    if (event.type === "response.output_text.delta") deltas.push(event.delta);
  }
  check("openai, responses", response.output_text, deltas);

  const stream = await client.chat.completions.create({ model, messages: endless, stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
  await assert.rejects(client.chat.completions.create({ model: "nobody", messages }), { status: 404, code: "model_not_found" });
  return 1;
}

async function checkAiSdk() {
  const agent = createOpenAICompatible({ name: "zeroone", baseURL: url, apiKey: key })(model);
  const whole = await generateText({ model: agent, messages, maxRetries: 0 });
  const pieces = [];
  for await (const piece of streamText({ model: agent, messages, maxRetries: 0 }).textStream) pieces.push(piece);
  check("ai-sdk", whole.text, pieces);
  const abort = new AbortController();
  const { textStream } = streamText({ model: agent, messages: endless, maxRetries: 0, abortSignal: abort.signal, onError() {} });
  for await (const _ of textStream) break;
  abort.abort();
  return 1;
}

const left = (await checkOpenai()) + (await checkAiSdk());
console.log(left);
