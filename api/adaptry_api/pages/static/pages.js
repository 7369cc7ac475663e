/* What pages gain from a script: copying, keys, menus that close, forms that are sent once. Everything else works without it. */
"use strict";

document.documentElement.classList.add("js");

/* A reload, or the back button, loads the page of a form instead of sending the form again. */
history.replaceState(history.state, "", location.href);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add("is-done");
    const status = document.getElementById("status");
    if (status) status.textContent = "Copied";
    setTimeout(() => button.classList.remove("is-done"), 1500);
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
});

/* Keys: `/` search, `?` help, `g` and a letter go to a page. */
const pages = {
  h: "/", b: "/-/bases", f: "/-/fleet", j: "/-/jobs", a: "/-/activity", d: "/-/docs", s: "/-/settings",
};
let isGoing = false;

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  }
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (isGoing && pages[event.key]) {
    location.assign(pages[event.key]);
  } else if (event.key === "/") {
    const search = document.getElementById("search");
    if (search) { event.preventDefault(); search.focus(); search.select(); }
  } else if (event.key === "?") {
    const help = document.getElementById("keys");
    if (help && !help.open) help.showModal();
  }
  isGoing = event.key === "g";
});

/* When a part of the page is replaced, the keyboard stays on the same control, or goes to the part's heading. */
const focused = new WeakMap();

function sameControls(part, control) {
  const key = (one) => [one.tagName, one.id, one.getAttribute("href"), one.name, one.getAttribute("aria-label"),
    one.matches("button, summary") ? one.textContent.trim() : ""].join("\n");
  const wanted = key(control);
  return [...part.querySelectorAll(control.tagName)].filter((one) => key(one) === wanted);
}

document.addEventListener("htmx:before:swap", ({ target }) => {
  const control = document.activeElement;
  focused.delete(target);
  if (control === target || !target.contains(control)) return;
  const place = sameControls(target, control).indexOf(control);
  focused.set(target, { control, place, heading: control.closest("[aria-labelledby]")?.getAttribute("aria-labelledby") });
});

document.addEventListener("htmx:after:swap", ({ target }) => {
  const before = focused.get(target);
  if (!before || before.control.isConnected || document.activeElement !== document.body) return;
  let next = sameControls(target, before.control)[before.place];
  if (!next) {
    next = document.getElementById(before.heading) ?? target.querySelector("h2, h3") ?? document.querySelector("h1");
    next.tabIndex = -1;
  }
  next.focus({ preventScroll: true });
});

/* Completion of the query: the browser's own list, filled with what the last word can become. */
const search = document.getElementById("search");
const queries = document.createElement("datalist");
queries.id = "queries";
let typing = 0;

async function complete() {
  const typed = search.value;
  const answer = await fetch(`/-/complete?q=${encodeURIComponent(typed)}`, { headers: { Accept: "application/json" } });
  if (!answer.ok || search.value !== typed) return;
  const { queries: found } = await answer.json();
  queries.replaceChildren(...found.map((one) => new Option(one, one)));
}

if (search) {
  search.after(queries);
  search.setAttribute("list", "queries");
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => complete().catch(() => queries.replaceChildren()), 200);
  });
}
/* A confirmation, which the server sends open, becomes modal: the keyboard stays in it, and Escape cancels. */
document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.querySelector("dialog[data-modal][open]");
  if (!dialog) return;
  dialog.close();
  dialog.showModal();
  dialog.addEventListener("cancel", () => location.assign(dialog.dataset.modal));
});
