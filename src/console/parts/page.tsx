import type { Child, PropsWithChildren } from 'hono/jsx';
import { useEffect, useRef } from 'hono/jsx/dom';

interface PageProps {
  title: string;
  /** Where this view belongs: a link back. */
  parent?: { href: string; name: string };
  /** Buttons beside the title. */
  actions?: Child;
}

/** A view: its title gets the focus when it appears, so that a screen reader begins there. */
export function Page({ title, parent, actions, children }: PropsWithChildren<PageProps>) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Patchbay`;
  }, [title]);
  useEffect(() => heading.current?.focus(), []);
  return (
    <div class="page">
      {parent && (
        <p class="parent">
          <a href={parent.href}>← {parent.name}</a>
        </p>
      )}
      <div class="heading">
        <h1 ref={heading} tabindex={-1}>
          {title}
        </h1>
        {actions && <div class="actions">{actions}</div>}
      </div>
      {children}
    </div>
  );
}

/** Text in place of what is being loaded. */
export const Loading = ({ what }: { what: string }) => (
  <p aria-busy="true" role="status">
    Loading {what}…
  </p>
);

/** In place of a list without rows: why it is empty, and what to do next. */
export const Empty = ({ children }: PropsWithChildren) => <div class="empty">{children}</div>;
