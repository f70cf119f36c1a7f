/** The present time, for a component that shows time passing. */
import { useEffect, useState } from 'react';

/** Milliseconds since the epoch, new every second; on the service's clock when told how far that is ahead. */
export function useNow(skew: number): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1000);
    return () => window.clearInterval(timer);
  }, []);
  return now + skew;
}
