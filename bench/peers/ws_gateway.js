// ws + ioredis: one channel that all gateways hear, and a map from customer to sockets.
// As the broadcast example of ws' README and the Pub/Sub example of ioredis'.
import Redis from "ioredis";
import WebSocket, { WebSocketServer } from "ws";

const [port, redisPort] = process.argv.slice(2).map(Number);
const customers = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port, backlog: 4096 });

server.on("connection", (socket, request) => {
  const customer = new URL(request.url, "http://localhost").searchParams.get("customer");
  const sockets = customers.get(customer) ?? new Set();
  customers.set(customer, sockets.add(socket));
  socket.on("error", console.error);
  socket.on("close", () => {
    sockets.delete(socket);
    if (!sockets.size) customers.delete(customer);
  });
});

const redis = new Redis({ host: "127.0.0.1", port: redisPort });
redis.on("message", (channel, message) => {
  const { customer, event } = JSON.parse(message);
  const sockets = customer === null ? server.clients : (customers.get(customer) ?? []);
  const text = JSON.stringify(event);
  for (const socket of sockets) {
    if (socket.readyState === WebSocket.OPEN) socket.send(text);
  }
});
await redis.subscribe("events");
