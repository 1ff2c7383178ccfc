/**
 * node listen.mjs CLIENT URL TOKEN: an unmodified client that prints the `n` of each event, a line each, and comes
 * back by itself where its connection ends.
 *
 * CLIENT: eventsource (npm), undici-eventsource, undici (long polling).
 */

const [client, url, token] = process.argv.slice(2);
const authorization = `Bearer ${token}`;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const heard = (event) => event.seq !== undefined && console.log(event.data.n);

if (client === "eventsource") {
  const { EventSource } = await import("eventsource");
  const source = new EventSource(url, {
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, authorization } }),
  });
  source.onmessage = ({ data }) => heard(JSON.parse(data));
} else if (client === "undici-eventsource") {
  const { Agent, EventSource } = await import("undici");
  const withToken = (dispatch) => (options, handler) => {
    const headers = Array.isArray(options.headers) ? Object.fromEntries(options.headers) : { ...options.headers };
    return dispatch({ ...options, headers: { ...headers, authorization } }, handler);
  };
  const dispatcher = new Agent().compose(withToken);
  const source = new EventSource(url, { node: { dispatcher, reconnectionTime: 200 } });
  source.onmessage = ({ data }) => heard(JSON.parse(data));
  setInterval(() => {}, 1_000); // its own timer lets Node end
} else {
  const { request } = await import("undici");
  let after = "";
  for (;;) {
    try {
      const { statusCode, body } = await request(`${url}?wait=25${after && `&after=${after}`}`, { headers: { authorization } });
      const { events, cursor } = await body.json();
      if (statusCode !== 200) throw new Error(`${statusCode}`);
      events.forEach(heard);
      after = cursor;
    } catch {
      await wait(200);
    }
  }
}
