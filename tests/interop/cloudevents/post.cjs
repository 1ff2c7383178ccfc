// Posts an event with the SDK as it comes: node post.cjs URL KEY MODE ID. Prints the status.
const { CloudEvent, HTTP } = require("cloudevents");

const [url, key, mode, id] = process.argv.slice(2);
const event = new CloudEvent({
  id,
  source: "/kitchen",
  type: "menu.changed",
  channel: "topic:menu",
  subject: "Käse 100 %",
  comexampleextension1: "value",
  data: { dish: "Soufflé ☕", prices: [1, null, 2.5] },
});
const message = mode === "binary" ? HTTP.binary(event) : HTTP.structured(event);
fetch(url, {
  method: "POST",
  body: message.body,
  // fetch takes Latin-1 only; what is beyond, a caller has to encode, as the HTTP binding says.
  headers: {
    ...Object.fromEntries(Object.entries(message.headers).map(([name, value]) => [name, encode(String(value))])),
    authorization: `Bearer ${key}`,
  },
}).then((answer) => console.log(answer.status));

function encode(value) {
  return value.replace(/[^ -~]|["%]/gu, (character) => encodeURIComponent(character));
}
