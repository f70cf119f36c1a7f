/**
 * The session in figures: time, processors, memory.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';

import { useNow } from './clock.js';
import { exactMemory, memory } from './format.js';
import type { Session } from './nouns.js';
import { span } from './words.js';

/** Below this the time left is shown as a warning. */
const SOON_MS = 10 * 60_000;

interface Props {
  session: Session;
  skew: number;
  trans: TranslationBundle;
}

/** Names and values, one beside the other. */
export function Facts({ session, skew, trans }: Props): ReactElement {
  const now = useNow(skew);
  return (
    <dl className="bkai-facts">
      {session.started && (
        <Fact
          name={trans.__('Running for')}
          value={span(now - Date.parse(session.started), trans)}
        />
      )}
      {session.deadline && (
        <Fact
          name={trans.__('Time left')}
          value={span(Date.parse(session.deadline) - now, trans)}
          exact={trans.__(
            'Ends at %1',
            new Date(Date.parse(session.deadline) - skew).toLocaleString()
          )}
          warn={Date.parse(session.deadline) - now < SOON_MS}
        />
      )}
      <Fact
        name={trans.__('Processor')}
        value={trans._n('%1 core', '%1 cores', session.cpu, session.cpu)}
      />
      <Fact
        name={trans.__('Memory')}
        value={memory(session.memory_mib)}
        exact={exactMemory(session.memory_mib)}
      />
      <Fact name={trans.__('Shared memory')} value={memory(session.shm_mib)} />
    </dl>
  );
}

function Fact(props: {
  name: string;
  value: string;
  exact?: string;
  warn?: boolean;
}): ReactElement {
  return (
    <div className={props.warn ? 'bkai-warn' : undefined} title={props.exact}>
      <dt>{props.name}</dt>
      <dd>{props.value}</dd>
    </div>
  );
}
