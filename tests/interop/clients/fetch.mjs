// Node's fetch, which is undici.
const [url, key, body] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
const answer = await fetch(url, { method: "POST", headers, body });
console.log(answer.status);
await answer.text(); // Node ends when it has read all of it
