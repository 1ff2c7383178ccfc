/**
 * Server-Sent Events, read from a fetch: unlike EventSource it sends a header, sees comments, and learns a status.
 */

import { Requests } from "./http.js";

/** @param {typeof globalThis.fetch} fetch @returns {import("../websocket.js").Transport} */
export default (fetch) => (url, listener) => {
  const requests = new Requests(fetch, url, listener);
  void read(requests, Object.fromEntries(url.searchParams)).catch((error) => requests.close(1006, String(error)));
  return { send: (text) => void requests.send(text), leave: () => requests.leave() };
};

/** @param {Requests} requests @param {Record<string, string>} query */
async function read(requests, query) {
  const response = await requests.get(query, { headers: { accept: "text/event-stream" } });
  if (!response.ok || !response.body || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
    return requests.refused(response);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return requests.close(1006, "the stream has ended");
    requests.alive();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length > 0) requests.received(JSON.parse(lines.map((line) => line.slice(5).trimStart()).join("\n")));
    }
  }
}
