/** Elements of our pages, found or made. Text of customers and callers is always set as text, never parsed as markup. */

/** @param {string} id @returns {HTMLElement} */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @param {string} tag @param {string} name @param {...(string | Node)} children */
export function make(tag, name, ...children) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
}

/** @param {string} src @param {number} size */
export function picture(src, size) {
  const image = document.createElement("img");
  image.src = src;
  image.alt = ""; // the name stands beside it
  image.width = image.height = size;
  return image;
}

// Made once: in WebKit, toLocaleString() with options costs a millisecond, and a list of alerts asks for hundreds.
const TODAY = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const EARLIER = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });

/** The time of today, else the date too; now where there is none. @param {string | null | undefined} text  RFC 3339 */
export function time(text) {
  const given = new Date(text ?? Date.now());
  const date = Number.isNaN(given.getTime()) ? new Date() : given;
  const shown = document.createElement("time");
  shown.dateTime = date.toISOString();
  const today = date.toDateString() === new Date().toDateString();
  shown.textContent = (today ? TODAY : EARLIER).format(date);
  return shown;
}

/** Date and time; a text that is none stays as it is. @param {string} text  RFC 3339 @returns {HTMLElement} */
export function moment(text) {
  const date = new Date(text);
  const known = !Number.isNaN(date.getTime());
  const made = make("time", "", known ? date.toLocaleString() : text);
  if (known) made.setAttribute("datetime", text);
  return made;
}
