// The Classifier room: how much a network keeps, which classes are sums of others, and which could be replaced.
import { useRef } from "preact/hooks";
import { address, route } from "../lib/route";
import { Workbench } from "../parts/workbench";

interface Tab {
  id: string;
  label: string;
  command: string;
  first: string[];
  lead: string;
  empty: string;
}

const TABS: Tab[] = [
  {
    id: "rank",
    label: "Rank",
    command: "measure rank",
    first: ["model", "images"],
    lead: "How many dimensions survive at each layer, and how many the classification needs.",
    empty: "Choose a classifier and a folder of pictures. You get the rank of every layer as curves, and the number of dimensions that the classes need.",
  },
  {
    id: "dependencies",
    label: "Dependencies",
    command: "measure dependencies",
    first: ["model", "images", "other", "config.error", "error"],
    lead: "Which classes are sums of a few others, inside one network or of another network's classes.",
    empty: "Choose a classifier and pictures. Classes that are sums of others appear as a graph: choose one to read its sum, or pull at it.",
  },
  {
    id: "deficit",
    label: "Deficit",
    command: "measure deficit",
    first: ["model", "images", "classes"],
    lead: "How well a few other classes' logits replace each class's own.",
    empty: "Choose a classifier and pictures. You get, for each class, how much is lost when a few others speak for it.",
  },
];

export function Classifier() {
  const tab = TABS.find((each) => each.id === route.value.rest) ?? TABS[0]!;
  const list = useRef<HTMLDivElement>(null);
  const turn = (event: KeyboardEvent) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length]!;
    location.hash = address("classifier", next.id);
    setTimeout(() => list.current?.querySelector<HTMLElement>("[aria-selected=true]")?.focus(), 60);
  };
  return (
    <div class="room classifier">
      <div class="tabs" role="tablist" aria-label="What to measure" ref={list} onKeyDown={turn}>
        {TABS.map((each) => (
          <button
            key={each.id}
            type="button"
            role="tab"
            id={`tab-${each.id}`}
            aria-selected={each === tab}
            aria-controls="tab-panel"
            tabIndex={each === tab ? 0 : -1}
            onClick={() => (location.hash = address("classifier", each.id))}
          >
            {each.label}
          </button>
        ))}
      </div>
      <div id="tab-panel" role="tabpanel" aria-labelledby={`tab-${tab.id}`}>
        <Workbench
          key={tab.command}
          command={tab.command}
          first={tab.first}
          verb="Measure"
          intro={<p class="lead">{tab.lead}</p>}
          empty={
            <>
              <h2>{tab.label}</h2>
              <p>{tab.empty}</p>
            </>
          }
        />
      </div>
    </div>
  );
}
