/**
 * Who is signed in, in this page's two ways: by name (development mode, a cookie), or with a customer's own token,
 * as it would be given by the application that signs its customers in.
 *
 * @typedef {object} Session
 * @property {string} customer
 * @property {(() => Promise<{ ticket: string } | { token: string }>) | undefined} getToken  undefined: the cookie does it
 */

export const DEVELOPMENT = document.documentElement.dataset.development === "true";
const TOKEN = "orderbell-shop/token"; // sessionStorage: this tab only, gone with it

/** Who is signed in already. @returns {Promise<Session | null>} */
export async function resume() {
  if (!DEVELOPMENT) {
    const token = sessionStorage.getItem(TOKEN);
    return token ? tokenSession(token) : null;
  }
  // The cookie can't be read by script.
  const { customer } = await json(await fetch("development/session"));
  return customer ? { customer, getToken: undefined } : null;
}

/** Development mode: the name is enough. @param {string} customer @returns {Promise<Session>} */
export async function signIn(customer) {
  await json(await post("development/sign-in", { customer }));
  return { customer, getToken: undefined };
}

/** @param {string} token @returns {Session} */
export function keepToken(token) {
  const session = tokenSession(token);
  sessionStorage.setItem(TOKEN, token);
  return session;
}

export async function signOut() {
  sessionStorage.removeItem(TOKEN);
  if (DEVELOPMENT) await post("development/sign-out", {});
}

/** @param {string} token @returns {Session} @throws {SyntaxError} */
function tokenSession(token) {
  return { customer: customerOf(token), getToken: () => ticket(token) };
}

/** A ticket is what a client sends that keeps the token itself off the connection. @param {string} token */
async function ticket(token) {
  const answer = await fetch("tickets", { method: "POST", headers: { authorization: `Bearer ${token}` } });
  // Refused here as there: the gateway's close code tells the page, in the one place where it listens.
  return answer.status === 401 ? { token } : json(answer);
}

/** The name in the token, to show it; whether the token is good is for the gateway to say. @param {string} token */
function customerOf(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { sub } = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0))));
    if (typeof sub === "string") return sub;
  } catch {
    // not a JWT; said below
  }
  throw new SyntaxError("That is not a token: expected three parts separated by dots, and a customer in the second.");
}

/** @param {string} path @param {object} body */
export function post(path, body) {
  return fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** The answer's JSON. @param {Response} answer @throws {Error} with the problem's own words */
export async function json(answer) {
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail ?? `The server answered ${answer.status}.`);
}
