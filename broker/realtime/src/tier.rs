//! The tier of one node: what the other files do, put together.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::tiers::{Cluster, Tier, TierService};
use fleetline_signalr::connection_id::ConnectionId;
use fleetline_signalr::connection_string::ConnectionString;
use fleetline_signalr::token::{Claim, Grant};
use fleetline_signalr::{Encoded, access_key, audience, token};
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use crate::bridge::Bridges;
use crate::clock::Clock;
use crate::connection::JoinFailed;
use crate::directory::Directory;
use crate::events::{ClientEvents, Events};
use crate::expiry::{Buried, Endings};
use crate::fanout::{Action, Fanout, Order, Target};
use crate::interest::Interest;
use crate::key::{Destination, Key};
use crate::limits::RealtimeOptions;
use crate::member::Member;
use crate::memberships::Store;
use crate::outbox::End;
use crate::outgoing::Outgoing;
use crate::peers::Peers;
use crate::publish::{Parts, PublishError, Publisher};
use crate::registry::{CONNECTION_SHARDS, Cause, JoinError, Leave, Registry};
use crate::settings::{SETTING, Settings, fresh};
use crate::stats::{RealtimeStats, Stats};
use crate::upstream::Upstream;
use crate::wire::{Adopt, Ask};

/// How often the tier looks after itself.
const TICK: Duration = Duration::from_secs(1);
/// Hubs that are listed in [`RealtimeStats`].
const HUBS_SHOWN: usize = 100;

/// Realtime hubs of one node.
pub struct Realtime {
    /// Itself, for the tasks of its connections.
    this: Weak<Realtime>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) devices: Arc<dyn DeviceHub>,
    options: RealtimeOptions,
    pub(crate) clock: Clock,
    pub(crate) peers: Peers,
    pub(crate) registry: Arc<Registry>,
    pub(crate) fanout: Arc<Fanout>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) interest: Arc<Interest>,
    pub(crate) memberships: Store,
    pub(crate) events: Events,
    pub(crate) stats: Arc<Stats>,
    pub(crate) buried: Buried,
    endings: Endings,
    settings: RwLock<Arc<Settings>>,
    /// Bytes in outboxes, by part of the connections; each part is counted once a minute.
    queued: Mutex<Vec<usize>>,
}

impl Realtime {
    /// The tier of a node, which answers other nodes from now on.
    pub fn new(cluster: Arc<dyn Cluster>, options: RealtimeOptions) -> Arc<Realtime> {
        let limits = options.limits.clone();
        let devices = cluster.devices();
        let peers = Peers::new(cluster.clone(), limits.call_wait);
        let (clock, stats) = (Clock::new(), Arc::<Stats>::default());
        let registry = Arc::new(Registry::new(devices.partitions(), limits.groups_max));
        let lanes = limits.lanes();
        let fanout = Arc::new(Fanout::new(registry.clone(), stats.clone(), lanes, limits.publish_bytes_max));
        let publisher = Arc::new(Publisher::new(Parts {
            peers: peers.clone(),
            registry: registry.clone(),
            fanout: fanout.clone(),
            directory: Directory::new(devices.partitions(), limits.interest_expiry),
            clock,
            bytes_max: limits.publish_bytes_max,
            batch_bytes: limits.batch_bytes_max,
        }));
        let upstream = Upstream::new(limits.upstream_idle_max, limits.upstream_reply_max);
        let tier = Arc::new_cyclic(|this| Realtime {
            this: this.clone(),
            interest: Arc::new(Interest::new(peers.clone(), registry.clone(), limits.interest_keys_max)),
            events: Events::new(upstream, stats.clone(), limits.events_per_hub, limits.upstream_wait),
            memberships: Store::new(devices.clone()),
            devices,
            buried: Buried::default(),
            endings: Endings::default(),
            queued: Mutex::new(vec![0; CONNECTION_SHARDS]),
            settings: RwLock::new(Arc::new(Settings::read(&cluster.setting(SETTING)))),
            cluster: cluster.clone(),
            options,
            clock,
            peers,
            registry,
            fanout,
            publisher,
            stats,
        });
        cluster.serve_tier(Tier::Realtime, tier.clone() as Arc<dyn TierService>);
        tier
    }

    /// Looks after settings, directories, memberships and bridges, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let (mut leaders, mut settings) = (self.peers.watch_leaders(), self.cluster.changes());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bridges = Bridges::default();
        let (mut part, mut refreshed) = (0, Instant::now());
        loop {
            self.reload().await;
            bridges.look(&self);
            tokio::select! {
                _ = tick.tick() => {
                    let refresh = refreshed.elapsed() >= self.options.limits.interest_refresh;
                    if refresh {
                        refreshed = Instant::now();
                    }
                    self.interest.look(refresh);
                    self.look_after(part);
                    part = (part + 1) % CONNECTION_SHARDS;
                }
                Ok(()) = leaders.changed() => self.interest.look(false),
                Ok(()) = settings.changed() => {}
            }
        }
    }

    fn look_after(&self, part: usize) {
        let alive = self.peers.alive();
        self.publisher.directory.keep_only(&alive);
        self.publisher.adopted.keep_only(&alive);
        self.buried.forget(self.clock.now_ms());
        let now = self.devices.now_ms();
        let members = self.registry.part(part);
        for member in &members {
            self.endings.watch_all(member, now);
        }
        self.queued.lock()[part] = members.iter().map(|member| member.outbox.bytes()).sum();
        for (member, key) in self.endings.take(now) {
            if let Some(gone) = self.registry.leave(&member, &key, Leave::UserUntil(now)) {
                self.interest.on_change(gone);
            }
        }
        let stats = self.stats();
        metrics::gauge!("fleetline_realtime_connections").set(stats.connections as f64);
        metrics::gauge!("fleetline_realtime_waiting_bytes").set(stats.waiting_bytes as f64);
        metrics::gauge!("fleetline_realtime_queue_bytes").set(stats.queued_bytes as f64);
        metrics::gauge!("fleetline_realtime_directory_keys").set(stats.directory_keys as f64);
    }

    /// Follows the setting; the first node that finds none makes it.
    async fn reload(&self) {
        let raw = self.cluster.setting(SETTING);
        if raw.value.is_empty() {
            // Another node may be faster: then its keys are there soon.
            let keys = fresh(&*self.devices).into();
            if let Err(error) = self.devices.put_setting(SETTING, keys, raw.version).await {
                tracing::debug!(%error, "realtime keys were not made");
            }
        }
        let raw = self.cluster.setting(SETTING);
        if raw.version != self.settings().version {
            *self.settings.write() = Arc::new(Settings::read(&raw));
        }
    }

    /// Sends a message. It was taken when this returns, not yet sent. To be called within a runtime.
    ///
    /// # Errors
    /// When too much waits.
    pub fn publish(&self, hub: &str, to: &Destination, message: Encoded) -> Result<(), PublishError> {
        self.stats.on_published();
        self.order(hub, to, Action::Send(Outgoing::new(message)))
    }

    /// Ends connections; clients are told the reason. To be called within a runtime.
    ///
    /// # Errors
    /// When too much waits.
    pub fn close(&self, hub: &str, of: &Destination, reason: Option<String>) -> Result<(), PublishError> {
        self.order(hub, of, Action::Close(reason))
    }

    pub(crate) fn order(&self, hub: &str, to: &Destination, action: Action) -> Result<(), PublishError> {
        let hub = hub.to_lowercase();
        let (target, excluded) = match to {
            Destination::All { excluded } => (Target::Key(Key::hub(&hub)), &excluded[..]),
            Destination::User(user) => (Target::Key(Key::user(&hub, user)), &[][..]),
            Destination::Group { name, excluded } => (Target::Key(Key::group(&hub, name)), &excluded[..]),
            Destination::Connection(id) => {
                (Target::Connection { hub: hub.into(), id: id.as_str().into() }, &[][..])
            }
        };
        self.publisher.publish(Order { target, excluded: excluded.into(), action })
    }

    /// Where a client of a hub goes, and the token that opens it. `None` as long as there are no keys.
    pub fn negotiate(
        &self,
        hub: &str,
        user: Option<&str>,
        claims: &[(String, String)],
        lifetime: Duration,
    ) -> Option<(String, String)> {
        let settings = self.settings();
        let key = &settings.keys.as_ref()?.primary;
        let claim = |(kind, value): &(String, String)| Claim { kind: kind.clone(), value: value.clone() };
        let claims: Vec<Claim> = claims.iter().map(claim).collect();
        let url = audience::client_audience(&self.options.endpoint, hub);
        let grant = Grant {
            audience: &url,
            user_id: user,
            claims: &claims,
            issued_at_secs: self.devices.now_ms() / 1_000,
            lifetime_secs: lifetime.as_secs(),
        };
        let token = token::mint(key, access_key::Algorithm::Hs256, &grant);
        Some((url, token))
    }

    /// The connection string for backends and bindings. `None` as long as there are no keys.
    pub fn connection_string(&self) -> Option<String> {
        let settings = self.settings();
        settings.keys.as_ref()?;
        let endpoint = self.options.endpoint.trim_end_matches('/');
        let authority = endpoint.split_once("://").map_or(endpoint, |(_, authority)| authority);
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let host = match port {
            Some(port) => endpoint.trim_end_matches(&format!(":{port}")),
            None => endpoint,
        };
        Some(ConnectionString::new(host, port, &settings.primary).to_string())
    }

    /// Has functions of this node handle clients' events, before upstreams are asked.
    pub fn on_client_event(&self, handler: Arc<dyn ClientEvents>) {
        self.events.set_functions(handler);
    }

    /// The tier in numbers.
    pub fn stats(&self) -> RealtimeStats {
        let mut stats = RealtimeStats {
            connections: self.registry.count(),
            hubs: self.registry.hubs(HUBS_SHOWN),
            waiting_bytes: self.fanout.bytes() + self.publisher.bytes(),
            directory_keys: self.publisher.directory.keys(),
            lost: self.publisher.lost(),
            queued_bytes: self.queued.lock().iter().sum(),
            ..RealtimeStats::default()
        };
        self.stats.fill(&mut stats);
        stats
    }

    /// Tells all clients to go, so that they come back elsewhere.
    pub fn shut_down(&self) {
        for part in 0..CONNECTION_SHARDS {
            for member in self.registry.part(part) {
                member.outbox.end(End::Shutdown);
            }
        }
    }

    pub(crate) fn close_excluding(
        &self,
        key: Key,
        excluded: Vec<String>,
        reason: Option<String>,
    ) -> Result<(), PublishError> {
        let action = Action::Close(reason);
        self.publisher.publish(Order { target: Target::Key(key), excluded: excluded.into(), action })
    }

    /// Itself, unless it is being dropped.
    pub(crate) fn this(&self) -> Option<Arc<Realtime>> {
        self.this.upgrade()
    }

    pub(crate) fn options(&self) -> &RealtimeOptions {
        &self.options
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Milliseconds of the tier's clock.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.clock.instant(at_ms)
    }

    /// Puts a connection whose handshake is good into its hub, and into its user's groups. When this returns,
    /// whoever publishes finds it.
    pub(crate) async fn join_hub(&self, member: &Arc<Member>) -> Result<(), JoinFailed> {
        let mut keys = vec![member.hub_key()];
        keys.extend(member.user_key());
        for key in &keys {
            let joined = self.join(member, key, Cause::Own);
            joined.map_err(|error| JoinFailed(format!("the connection can't join its hub: {error}")))?;
        }
        self.ensure(&keys).await?;
        let Some(user) = &member.client.user else { return Ok(()) };
        // A group that the user is put into from now on finds the connection by its user.
        let memberships = self.memberships.read(member.hub.as_str(), user).await;
        let memberships = memberships.map_err(|error| {
            tracing::debug!(%error, hub = member.hub.as_str(), "groups of a user can't be read");
            JoinFailed("the user's groups can't be read now, try again".to_owned())
        })?;
        let mut groups = Vec::new();
        for membership in memberships.groups {
            let key = Key::group(member.hub.as_str(), &membership.group);
            let cause = Cause::User { until: membership.until_ms };
            match self.join(member, &key, cause) {
                Ok(()) => groups.push(key),
                Err(error) => tracing::debug!(?error, ?key, "a connection is not in a group of its user"),
            }
        }
        self.ensure(&groups).await
    }

    /// Adds a member to a set, here.
    pub(crate) fn join(&self, member: &Arc<Member>, key: &Key, cause: Cause) -> Result<(), JoinError> {
        if let Cause::User { until } = cause {
            self.endings.watch(member, key, until, self.devices.now_ms());
        }
        if self.registry.join(member, key.clone(), cause)? {
            self.interest.on_change(key.clone());
        }
        Ok(())
    }

    /// Waits until the directories know that these keys have members here.
    pub(crate) async fn ensure(&self, keys: &[Key]) -> Result<(), JoinFailed> {
        let wait = self.options.limits.join_wait;
        let known = join_all(keys.iter().map(|key| self.interest.ensure(key, wait))).await;
        match known.into_iter().all(|known| known.is_ok()) {
            true => Ok(()),
            false => Err(JoinFailed("the hub's directory doesn't answer now, try again".to_owned())),
        }
    }

    /// Takes a connection out of everything; does nothing the second time.
    pub(crate) fn leave(&self, member: &Member) {
        let Some(gone) = self.registry.remove(member) else { return };
        for key in gone {
            self.interest.on_change(key);
        }
        let owner = member.id.node();
        if owner != self.peers.me && self.peers.alive().contains(&owner) {
            let (peers, connection) = (self.peers.clone(), member.id.to_string());
            tokio::spawn(async move {
                // When it isn't told, what is sent there comes here for nothing until this node is gone.
                drop(peers.call(owner, Ask::Adopt(Adopt { connection, is_over: true })).await);
            });
        }
    }

    /// Remembers that a connection is over, so that its client isn't taken for a new one.
    pub(crate) fn bury(&self, member: &Member) {
        self.buried.add(member.id.as_str(), self.clock.now_ms());
    }

    /// A fresh id for a connection of this node.
    pub(crate) fn mint(&self) -> ConnectionId {
        let mut random = [0; fleetline_signalr::connection_id::RANDOM_BYTES];
        self.devices.random(&mut random);
        ConnectionId::mint(self.peers.me, random)
    }

    /// Whether the client of a member may come back on a new socket.
    pub(crate) fn is_resumable(member: &Member) -> bool {
        member.is_resumable.load(Ordering::Relaxed)
    }
}
