"use strict";
// The server renders; this only asks again, and keeps open what was open.
(() => {
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");

  function folded() {
    return new Map([...live.querySelectorAll("details")].map((one) => [one.id, one.open]));
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      const answer = await fetch("live", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const markup = await answer.text();
      const before = folded();
      live.innerHTML = markup;
      for (const one of live.querySelectorAll("details")) {
        if (before.has(one.id)) one.open = before.get(one.id);
      }
      lost.classList.remove("shown");
    } catch (error) {
      lost.classList.add("shown");
    }
  }

  async function forever() {
    await refresh();
    setTimeout(forever, 2000);
  }

  setTimeout(forever, 1200);
})();
