//! Which connections end: those to strangers, surplus ones, and those through hosts that a direct one replaces.

use super::*;

impl Actor {
    /// Closes connections to strangers and surplus ones that nothing uses; returns when the next one may be due.
    pub(super) fn close_unused(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let surplus = self.roster.surplus();
        let surplus = surplus
            .iter()
            .filter(|one| self.roster.closes_surplus(&one.device))
            .map(|one| (one, self.patience.surplus_idle));
        let strange = self.roster.strange();
        let strange = strange.iter().map(|one| (one, self.patience.stranger_idle));
        let mut closing = Vec::new();
        for (connection, patience) in surplus.chain(strange) {
            if connection.usage.is_shut() {
                continue;
            }
            let Some(since) = connection.usage.idle_since() else {
                continue;
            };
            let due = since + patience;
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if connection.usage.shut_if_idle() {
                closing.push(connection.id);
            }
        }
        for id in closing {
            self.swarm.close_connection(id);
        }
        next
    }

    /// Closes relayed connections of devices with which a direct one has proved itself: when nothing uses them, or after a
    /// grace with what is left on them. Returns when the next one may be due.
    pub(super) fn close_relayed(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut closing = Vec::new();
        for relayed in self.watched.relayed() {
            let connection = &relayed.connection;
            if connection.usage.is_shut() {
                continue;
            }
            let of_it = self.roster.connections_of(&connection.device);
            let mut of_it = of_it.iter().filter_map(|one| self.watched.get(one.id));
            let direct = of_it.find(|one| {
                one.connection.relayed.is_none()
                    && one.proven
                    && !one.connection.usage.is_shut()
                    && one.connection.is_same_node(connection)
            });
            let Some(direct) = direct else {
                continue;
            };
            let at_last = direct.connection.since + self.patience.relayed_grace;
            let idle = connection.usage.idle_since();
            let due = idle.map_or(at_last, |since| {
                at_last.min(since + self.patience.surplus_idle)
            });
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if at_last <= now || connection.usage.shut_if_idle() {
                connection.usage.shut();
                closing.push(connection.id);
            }
        }
        for id in closing {
            tracing::debug!("a direct path replaces the one through a host");
            self.swarm.close_connection(id);
            self.gone(id, now);
        }
        next
    }
}
