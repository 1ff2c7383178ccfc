// Publishes from another process, as the documentation of Socket.IO's Redis emitter has it.
// A line in: [[customer or null, event], …]. A line out when they are on their way.
import { createInterface } from "node:readline";
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";

const redis = createClient({ url: `redis://127.0.0.1:${process.argv[2]}` });
await redis.connect();
const emitter = new Emitter(redis);

for await (const line of createInterface({ input: process.stdin })) {
  for (const [customer, event] of JSON.parse(line)) {
    if (customer === null) emitter.emit("event", event);
    else emitter.to(customer).emit("event", event);
  }
  await redis.ping();
  process.stdout.write("\n");
}
