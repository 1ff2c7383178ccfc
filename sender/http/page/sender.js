/**
 * The sender's API as this page uses it.
 *
 * @typedef {object} Order
 * @property {string} order_id
 * @property {string} customer_id
 * @property {"open" | "completed" | "cancelled"} status
 * @property {string} created_at
 * @property {string | null} completed_at
 * @property {string} [cancelled_at]
 * @property {"retracted"} [alert]  of a completed order: it was taken back
 * @property {Record<string, unknown>} data
 */

const SILENCE_MS = 40_000; // the sender writes something every 15 s; after this the connection is dead
const RETRY_MS = [300, 1_000, 2_000, 4_000, 8_000]; // after a lost answer

export class Refused extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Development mode only: the key that `make run` made. @returns {Promise<string>} */
export async function developmentKey() {
  const { api_key } = await json(await fetch("development/api-key"));
  return api_key;
}

export class Sender {
  #headers;

  /** @param {string} key */
  constructor(key) {
    this.#headers = { authorization: `Bearer ${key}` };
  }

  /**
   * The orders of the board, then each change, until the connection ends. Oldest first: the row under somebody's
   * pointer stays where it is.
   *
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<{ orders: Order[], gone: string[], more: boolean }>}
   * @throws {Refused}
   */
  async *changes(signal) {
    const silence = new AbortController();
    /** @type {number | undefined} */
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    heard();
    try {
      const either = AbortSignal.any([signal, silence.signal]);
      const answer = await fetch("orders/changes", { headers: this.#headers, signal: either, cache: "no-store" });
      if (!answer.ok) await json(answer); // throws
      const reader = /** @type {ReadableStream} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        heard();
        const blocks = (text + read.value).split("\n\n");
        text = blocks.pop() ?? "";
        for (const block of blocks) if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * What became of an alert, by `order_id`, `event_id` or `customer_id`.
   *
   * @param {Record<string, string>} asked
   */
  async trace(asked) {
    return this.#get(`trace?${new URLSearchParams(asked)}`);
  }

  /** Everybody's, or one customer's. @param {string} customer */
  async connections(customer) {
    return this.#get(customer ? `connections?${new URLSearchParams({ customer_id: customer })}` : "connections");
  }

  /**
   * Completes an order, once, however often its answer is lost.
   *
   * @param {string} orderId
   * @param {{ message: string, key: string, lost: () => void }} how  key: the same for every try; `lost` is told
   *   before another try
   * @returns {Promise<Order>}
   */
  async complete(orderId, { message, key, lost }) {
    const body = JSON.stringify(message ? { data: { message } } : {});
    const headers = { ...this.#headers, "content-type": "application/json", "idempotency-key": key };
    const path = `orders/${encodeURIComponent(orderId)}/complete`;
    for (const wait of [...RETRY_MS, null]) {
      try {
        const answer = await fetch(path, { method: "POST", headers, body });
        if (answer.status < 500 || wait === null) return (await json(answer)).order;
      } catch (error) {
        if (!(error instanceof TypeError) || wait === null) throw error; // TypeError: no answer
      }
      lost();
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    throw new Error("unreachable: the last try returns or throws");
  }

  /** Cancels an order: its alert is taken back, on every device. @param {string} orderId @returns {Promise<Order>} */
  async cancel(orderId) {
    const headers = { ...this.#headers, "content-type": "application/json" };
    const path = `orders/${encodeURIComponent(orderId)}/cancel`;
    return (await json(await fetch(path, { method: "POST", headers, body: "{}" }))).order;
  }

  /** @param {string} path */
  async #get(path) {
    return json(await fetch(path, { headers: this.#headers }));
  }
}

/** @param {Response} answer @throws {Refused} */
async function json(answer) {
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.detail ?? `The sender answered ${answer.status}.`);
}
