// A strict Node project without browser types; checked, not run.
import { AlertSource } from "@orderbell/client";
import WebSocket from "ws";

const alerts = new AlertSource("https://alerts.example/", { environment: { WebSocket } });
alerts.addEventListener("message", ({ data, lastEventId }) => console.log(data.type, lastEventId.length));
alerts.addEventListener("order.completed", (event) => console.log(event.type));
alerts.onclose = ({ code }) => console.log(code.toFixed());
