/* Sends the code of a sign-in link, which is in the fragment, and removes it from the history. */
"use strict";

const code = location.hash.slice(1);
const place = document.getElementById("outcome");
history.replaceState(null, "", location.pathname);

async function redeem() {
  const answer = await fetch(location.pathname, { method: "POST", body: new URLSearchParams({ code }), headers: { Accept: "application/json" } });
  if (answer.ok) {
    location.replace(place.dataset.next);
  } else {
    place.textContent = (await answer.json()).detail;
  }
}

if (code) redeem().catch(() => { place.textContent = "The server did not answer. Open the link again."; });
else place.textContent = "This link has no code. Open the one that adaptry serve printed.";
