import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

import { useAlerts } from "@orderbell/client/react";
import "@orderbell/client/toast.css";

const given = new URLSearchParams(location.hash.slice(1));
const key = given.get("customer") ?? "";

function App() {
  const [had, setHad] = useState<number[]>([]);
  const { state } = useAlerts(given.get("url") ?? "", {
    key,
    getToken: () => ({ token: given.get("token") ?? "" }),
    onMessage: ({ seq }) => setHad((before) => [...before, seq ?? 0]),
  });
  return <p data-state={state}>{had.join()}</p>;
}

function Switch() {
  const [mounted, setMounted] = useState(true);
  return (
    <>
      <button onClick={() => setMounted(false)}>Leave</button>
      {mounted && <App />}
    </>
  );
}

createRoot(document.getElementById("app")!).render(<StrictMode><Switch /></StrictMode>);
