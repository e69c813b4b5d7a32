"""Does `photopic studio` stand up to people? Everything at once for ten minutes, and what it costs to draw there.

    python -m benchmarks studio                # writes benchmarks/results/studio.json

The server is the command itself in a process of its own around the bundled `emoji-diffusion`. At once: somebody draws, with
edits, layouts, maps of attention, and cancels every third time; somebody teaches subjects, looks into edits, composes and verifies
them; somebody uploads pictures, settings, bombs and other files; tabs listen, leave and come again; somebody reads pages; somebody
has no token or is another page. What is over is deleted as people do. A crash is: the server ends, answers 5xx, gives a good
request no good answer, fails a good job, or does not end in order when it is asked to. Resident memory is the server's, every
second; its growth is the median of the last tenth over the median of the first tenth after the warm-up, a fifth of the time. The
overhead of drawing is the time of a job, from its start to its end, over that of `photopic generate` without its start, in pairs.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.generate.studio_page import Page, Tab
from benchmarks.guard.guard_requests import bomb
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data.pictures import png_bytes
from photopic.metrics.intervals import bootstrap
from photopic.serve.counts import resident_bytes

MODEL = "emoji-diffusion"
WARM_UP = 0.2
SEED = 0
CLAIMS = (
    Claim("studio.crashes", "== 0"),
    Claim("studio.rss_growth", "<= 0.05", "last tenth over first tenth after the warm-up"),
    Claim("studio.answer_median_s", "<= 0.1", "reading state and jobs while jobs run", "s"),
    Claim("studio.draw_overhead", "<= 0.05", "of a job of eight pictures over photopic generate without its start"),
)
SEARCH = {"steps": 4, "batch": 2, "density": 0.02, "preservation_count": 4, "evaluation": 2}
BOXES = [{"words": "bear", "box": [0, 0, 0.5, 1]}, {"words": "cat", "box": [0.5, 0, 1, 1]}]


@dataclass(frozen=True)
class StudioConfig(Config):
    """How much is measured."""

    seconds: Annotated[int, Ge(5)] = 600  # under load
    pairs: Annotated[int, Ge(2)] = 12  # of drawing with and without a studio


@dataclass
class Seen:
    """What came of a load."""

    answers: Counter[str] = field(default_factory=Counter)  # by what was asked and its status
    ended: Counter[str] = field(default_factory=Counter)  # jobs by kind and state
    read_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, status: int, wanted: tuple[int, ...]) -> None:
        """One answer, and those it may be."""
        with self.lock:
            self.answers[f"{what} {status}"] += 1
            if status not in wanted:
                self.failures.append(f"{what}: {status}")


def picture(rng: np.random.Generator) -> bytes:
    """A picture of noise that nobody sent before."""
    return png_bytes(rng.integers(0, 256, (64, 64, 3), np.uint8))


def draws(page: Page, seen: Seen, rng: np.random.Generator) -> None:
    """One drawing of some kind, looked at, cancelled or deleted."""
    forms: list[dict[str, Any]] = [
        {"prompt": "a bear on a red background"},
        {"prompt": "a bear and a cat", "layout": BOXES},
        {"prompt": "a red mug", "attention": True},
    ]
    edits = [each["name"] for each in page.get("/api/edits") if each.get("token") == "<mine>"]
    if edits:
        forms.append({"prompt": "a <mine> bear", "edits": [{"name": str(rng.choice(edits)), "weight": 0.5}]})
    form = forms[int(rng.integers(len(forms)))] | {"count": 2, "steps": 4, "seed": int(rng.integers(1000))}
    answer = page.ask("POST", "/api/jobs", {"kind": "draw", "form": form})
    seen.note("draw", answer.status, (202, 404))  # its edit may be deleted meanwhile
    if answer.status != 202:
        return
    job = answer.json["id"]
    if rng.integers(3) == 0:
        seen.note("cancel", page.ask("DELETE", f"/api/jobs/{job}").status, (200, 409))
    follow(page, seen, job, also=("cancelled",))


def follow(page: Page, seen: Seen, job: str, also: tuple[str, ...] = ()) -> None:
    """Wait for a job, look at what it made, and delete it."""
    answer = page.ask("GET", f"/api/jobs/{job}")
    while answer.status == 200 and answer.json["state"] in ("waiting", "running"):
        time.sleep(0.1)
        answer = page.ask("GET", f"/api/jobs/{job}")
    if answer.status != 200:
        return  # it was over before it was cancelled, which deletes it
    found = answer.json
    with seen.lock:
        seen.ended[f"{found['kind']} {found['state']}"] += 1
        gone = (found["field"] or "").startswith("edits.")  # somebody else deleted it
        if found["state"] not in ("done", *also) and not gone:
            seen.failures.append(f"{found['kind']} {found['state']}: {found['error']}"[:200])
    for each in found["results"]:
        seen.note("result", page.ask("GET", each["url"]).status, (200, 404) if each["kind"] == "edit" else (200,))
    seen.note("forget", page.ask("DELETE", f"/api/jobs/{job}").status, (200,))


def teaches(page: Page, seen: Seen, rng: np.random.Generator) -> None:
    """A subject, and what is done with its edit."""
    keys = [
        each["id"]
        for each in page.upload("/api/pictures", {"a.png": picture(rng), "b.png": picture(rng)}).json["pictures"]
    ]
    pictures = [{"id": key, "crop": [0, 0, 0.8, 0.8], "caption": ""} for key in keys]
    options = SEARCH | {"seed": int(rng.integers(1000))}
    form = {"pictures": pictures, "noun": "bear", "options": options, "sample_every": 2}
    follow(page, seen, page.start("subject", form))
    names = [each["name"] for each in page.get("/api/edits")]
    for name in names[:2]:
        seen.note("view", page.ask("GET", f"/api/edits/{name}/view").status, (200,))
    if len(names) > 1:
        both = {"names": names[:2], "output": f"both-{int(rng.integers(10**6))}.edit"}
        seen.note("interference", page.ask("POST", "/api/edits/interference", both).status, (200,))
        for overlap in ("error", "union"):  # of two with one word: refused, and says why
            seen.note(
                "compose", page.ask("POST", "/api/edits/compose", both | {"overlap": overlap}).status, (201, 400, 409)
            )
        verify = page.ask("POST", "/api/edits/verify", {"name": names[0]})
        seen.note("verify", verify.status, (202,))
        follow(page, seen, verify.json["id"])
    for name in names[3:]:
        seen.note("remove", page.ask("DELETE", f"/api/edits/{name}").status, (204,))


def uploads(page: Page, seen: Seen, rng: np.random.Generator) -> None:
    """Pictures good and bad in one form, and what is no edit."""
    files = {"good.png": picture(rng), "bomb.png": bomb(60_000, 60_000), "text.png": b"no picture"}
    answer = page.upload("/api/pictures", files)
    seen.note("upload", answer.status, (200,))
    kept = answer.json["pictures"]
    seen.note("thumbnail", page.ask("GET", kept[0]["url"] + "?size=128").status, (200,))
    if len(kept) != 1:
        seen.failures.append(f"upload: kept {len(kept)} of one good picture")
    seen.note("no edit", page.upload("/api/edits", {"x.edit": picture(rng)}).status, (400,))


def reads(page: Page, seen: Seen, rng: np.random.Generator) -> None:
    """What a page asks while somebody looks at it."""
    for path in ("/api/state", "/api/jobs", "/api/edits", "/api/methods"):
        begun = time.perf_counter()
        seen.note("read", page.ask("GET", path).status, (200,))
        with seen.lock:
            seen.read_s.append(time.perf_counter() - begun)


def listens(page: Page, seen: Seen, rng: np.random.Generator) -> None:
    """A tab that is open for a while, and another that goes on where it was."""
    tab = Tab(page)
    time.sleep(float(rng.uniform(0.1, 1.0)))
    tab.close()
    again = Tab(page, tab.events[-1][0] if tab.events else None)
    time.sleep(0.2)
    again.close()
    seen.note("listen", 200, (200,))


def forges(page: Page, seen: Seen, rng: np.random.Generator) -> None:
    """Whoever has no token, is another page, or asks for what is outside."""
    seen.note("no token", page.ask("GET", "/api/state", without=("Cookie",)).status, (401,))
    seen.note("foreign host", page.ask("GET", "/api/state", Host="evil.example").status, (421,))
    seen.note("foreign origin", page.ask("POST", "/api/jobs", {}, Origin="http://evil.example").status, (403,))
    seen.note("outside", page.ask("GET", "/api/edits/..%2f..%2fetc%2fpasswd").status, (400, 404))
    seen.note("nonsense", page.ask("POST", "/api/jobs", b"{").status, (400,))


Person = Callable[[Page, Seen, np.random.Generator], None]
PEOPLE: tuple[tuple[Person, float], ...] = (  # what each does over and over, and the pause between
    (draws, 0.2), (draws, 0.5), (teaches, 1.0), (uploads, 0.5), (reads, 0.2), (listens, 0.1), (forges, 0.3),
)  # fmt: skip


def load(page: Page, seconds: float, seen: Seen, watch: Callable[[], None] = lambda: None) -> None:
    """Everybody at once for some time; ``watch`` is called every second."""
    until = time.monotonic() + seconds

    def act(person: Person, pause: float, number: int) -> None:
        rng = np.random.default_rng((SEED, number))
        while time.monotonic() < until:
            try:
                person(page, seen, rng)
            except Exception as error:  # no answer, or one that cannot be
                with seen.lock:
                    seen.failures.append(f"{person.__name__}: {type(error).__name__} {error}"[:200])
                time.sleep(0.5)
            time.sleep(pause)

    threads = [threading.Thread(target=act, args=(*each, number)) for number, each in enumerate(PEOPLE)]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        watch()
        time.sleep(min(1.0, seconds / 10))
    for thread in threads:
        thread.join()


def loaded(seconds: float) -> Seen:
    """The command itself under load, and how it ends."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        words = ["studio", "--no-browser", "--workspace", f"{folder}/studio", "--model", MODEL]
        command = [sys.executable, "-c", "from photopic.cli.main import app; app()", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)/\?token=(\S+)", process.stdout.readline())
            assert found is not None, "the server did not say its address"
            page = Page(int(found[1]), found[2])
            while page.get("/api/state")["model"]["status"] == "loading":
                time.sleep(0.2)
            begun = time.monotonic()
            load(
                page,
                seconds,
                seen,
                lambda: seen.resident.append((time.monotonic() - begun, resident_bytes(process.pid) or 0)),
            )
            stop(process, page, seen, Path(folder) / "studio")
        finally:
            process.kill()
            process.wait()
    return seen


def stop(process: subprocess.Popen[str], page: Page, seen: Seen, workspace: Path) -> None:
    """SIGTERM in the middle of a drawing, with a tab that listens: it ends, and the drawing is there to go on."""
    if process.poll() is not None:
        seen.failures.append(f"the server ended with {process.returncode}")
        return
    tab, job = Tab(page), page.start("draw", {"prompt": "a bear", "count": 1, "steps": 900})
    page.wait(job, lambda found: found["done"] > 1)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        seen.failures.append("stopping: still running after 60 s")
    tab.close()
    if '"interrupted"' not in (workspace / "runs" / job / "job.json").read_text():
        seen.failures.append("stopping: what ran is not there as interrupted")


def overheads(pairs: int) -> list[float]:
    """Share of time that a studio adds to drawing eight pictures, once a pair; which of the two comes first alternates."""
    from photopic.calls.drawing import Asked, draw_events, prepare
    from photopic.data.pictures import write_next
    from photopic.models.text_to_image.handle import TextToImage
    from photopic.studio.app import open_studio
    from photopic.studio.server import serving

    prompt, found = "a bear on a red background", []
    with tempfile.TemporaryDirectory() as folder:
        model, output = TextToImage.load(MODEL, device="cpu"), Path(folder) / "out"
        output.mkdir()
        with serving(open_studio(f"{folder}/studio", MODEL, device="cpu")) as opened:
            thread = threading.Thread(target=opened.run)
            thread.start()
            page = Page(opened.port, opened.keys.token)
            while page.get("/api/state")["model"]["status"] == "loading":
                time.sleep(0.1)
            tab = Tab(page)

            def plainly(seed: int) -> float:
                begun = time.perf_counter()
                for event in draw_events(prepare(Asked(prompt=prompt, seed=seed)), model):
                    for content in event.result.files() if event.result is not None else ():
                        write_next(output, content)
                return time.perf_counter() - begun

            def there(seed: int) -> float:
                job = page.start("draw", {"prompt": prompt, "seed": seed})
                while page.get(f"/api/jobs/{job}")["state"] in ("waiting", "running"):
                    time.sleep(0.25)
                done = page.get(f"/api/jobs/{job}")
                return float(done["ended"] - done["started"])

            plainly(0), there(0)  # warm
            for number in range(pairs):
                order = (plainly, there) if number % 2 else (there, plainly)
                spent = {each: each(number) for each in order}
                found.append(spent[there] / spent[plainly] - 1)
            tab.close()
            opened.server.end()
            thread.join()
    return found


def rows(bench: Bench[StudioConfig, Any]) -> Iterator[Row]:
    """The claims."""
    seconds = float(bench.config.seconds)
    seen, warm = loaded(seconds), seconds * WARM_UP
    said = ", ".join(f"{what}: {count}" for what, count in sorted((seen.answers + seen.ended).items()))
    failures = "; ".join(sorted(set(seen.failures))[:3])
    note = f"{seconds:.0f} s; {said}" + (f"; failures: {failures}" if failures else "")
    yield row("studio.crashes", len(seen.failures), n=sum(seen.answers.values()), note=note)
    first = [size for moment, size in seen.resident if warm <= moment < warm + seconds / 10]
    last = [size for moment, size in seen.resident if moment >= seconds - seconds / 10]
    note = f"{median(first) / 2**20:.0f} to {median(last) / 2**20:.0f} MiB after {warm:.0f} s; load {os.getloadavg()[1]:.1f}"
    yield row("studio.rss_growth", median(last) / median(first) - 1, n=len(first) + len(last), note=note)
    times = np.sort(seen.read_s)
    note = f"p95 {np.quantile(times, 0.95):.3f} s, worst {times[-1]:.3f} s, eight senders beside it"
    yield row("studio.answer_median_s", float(np.median(times)), n=len(times), note=note)
    shares = overheads(bench.config.pairs)
    yield row("studio.draw_overhead", bootstrap(shares), n=len(shares))


BENCHMARKS = (Benchmark("studio", __doc__, StudioConfig(), StudioConfig(20, 2), CLAIMS, rows, seeds=(SEED,)),)
