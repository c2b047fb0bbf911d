// A stand-in for a model: streams what a test tells it to, word by word.

import { createServer } from "node:http";

/** What a hostile model would answer: markup in every form that Markdown knows. */
export const HOSTILE = [
  "<script>window.hacked = 1</script><img src=x onerror=\"window.hacked = 1\">",
  "[click](javascript:window.hacked=1) ![picture](https://elsewhere.example/pixel.png)",
  "```html\n<svg onload=window.hacked=1></svg>\n```",
  "| <b>a</b> | b |\n|---|---|\n| <iframe src=javascript:window.hacked=1> | 2 |",
].join("\n\n");

const USAGE = { prompt_tokens: 40, completion_tokens: 2, total_tokens: 42 };

/** `pace` is the time between two words; `answer` makes the text for the user's last words. `address` is where it listens, and
 * `host` how agents call that. */
export async function startModel({ address = "127.0.0.1", host = address } = {}) {
  const model = { pace: 5, heard: [], answer: (words) => `You said: **${words}**`, fail: null };
  const server = createServer((request, response) => {
    if (request.method === "GET") return models(request, response);
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => answer(model, JSON.parse(body || "{}"), response).catch(() => response.destroy()));
  });
  await new Promise((resolve) => server.listen(0, address, resolve));
  model.url = `http://${host}:${server.address().port}/v1`;
  model.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return model;
}

/** Names its models to whoever has its key. */
function models(request, response) {
  const known = request.url === "/v1/models" && request.headers.authorization === "Bearer sk-test";
  response.writeHead(known ? 200 : 401, { "content-type": "application/json" });
  response.end(JSON.stringify(known ? { data: [{ id: "stand-in" }, { id: "stand-in-mini" }] } : { error: { message: "<b>no</b> such key" } }));
}

async function answer(model, chat, response) {
  const content = [...(chat.messages ?? [])].reverse().find((it) => it.role === "user")?.content ?? "";
  const words = typeof content === "string" ? content : content.map((it) => it.text ?? "").join(" ");
  model.heard.push(words);
  if (model.fail) {
    response.writeHead(model.fail, { "content-type": "application/json" });
    return response.end(JSON.stringify({ error: { message: "<b>no</b> credit", code: "insufficient_quota" } }));
  }
  const text = model.answer(words);
  if (!chat.stream) {
    response.writeHead(200, { "content-type": "application/json" });
    return response.end(JSON.stringify({ choices: [{ message: { role: "assistant", content: text }, finish_reason: "stop" }], usage: USAGE }));
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (delta, end = null) => response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: end }] })}\n\n`);
  for (const word of text.match(/\S*\s*/g)) {
    if (word) send({ content: word });
    await new Promise((resolve) => setTimeout(resolve, model.pace));
  }
  send({}, "stop");
  if (chat.stream_options?.include_usage) response.write(`data: ${JSON.stringify({ choices: [], usage: USAGE })}\n\n`);
  return response.end("data: [DONE]\n\n");
}
