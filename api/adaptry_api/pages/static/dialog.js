/* Shows pages of links with `data-dialog` in a dialog, and sends their forms from there. Without this script
   the same links and forms lead to whole pages. */
"use strict";

const dialog = document.createElement("dialog");
dialog.className = "wide";
document.body.append(dialog);

function closing() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button small close";
  button.textContent = "Close";
  button.addEventListener("click", () => dialog.close());
  return button;
}

/* Shows the part of a page that is for a dialog, or goes to the page if it has none. */
async function show(answer) {
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const part = page.querySelector("[data-dialog-content]") ?? (answer.ok ? null : page.querySelector("main"));
  if (!part) {
    location.assign(answer.url);
    return;
  }
  const heading = part.querySelector("h1");
  heading.id = "dialog-title";
  heading.tabIndex = -1;
  dialog.setAttribute("aria-labelledby", "dialog-title");
  dialog.replaceChildren(closing(), document.adoptNode(part));
  if (!dialog.open) dialog.showModal();
  heading.focus();
}

async function load(address, options = {}) {
  try {
    await show(await fetch(address, { headers: { Accept: "text/html" }, ...options }));
  } catch {
    if (!options.method) location.assign(address);
    else dialog.replaceChildren(closing(), "The server did not answer. Close this, and open it again to see what was done.");
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-dialog]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  load(link.href);
});

dialog.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  const fields = new URLSearchParams(new FormData(form, event.submitter));
  if (form.method === "post") load(form.action, { method: "POST", body: fields });
  else load(`${form.action}?${fields}`);
});
