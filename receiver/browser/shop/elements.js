/** Elements of the page, found or made. Text is always set as text, never parsed as markup. */

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

/** @param {string | null | undefined} moment  RFC 3339 */
export function time(moment) {
  const given = new Date(moment ?? Date.now());
  const date = Number.isNaN(given.getTime()) ? new Date() : given;
  const shown = document.createElement("time");
  shown.dateTime = date.toISOString();
  const today = date.toDateString() === new Date().toDateString();
  shown.textContent = date.toLocaleString(
    [],
    today ? { hour: "2-digit", minute: "2-digit" } : { dateStyle: "medium", timeStyle: "short" },
  );
  return shown;
}
