"""The transport's settings while it serves: exchanged whole when a certificate or the configuration of a pool changes."""

from __future__ import annotations

from collections.abc import Callable

from epp.config.loaded import LoadedConfig
from epp.pool.build import request_readers
from epp.pools.readers import ReaderUnion
from epp.process.options import Options
from epp.process.transport_settings import check_readers, transport_settings, with_configs
from epp.seam import Settings, Transport


class LiveSettings:
    """What a transport goes by.

    Args:
        options: of the process.
        transport: told of each change.
        union: the readers of all pools that share the transport; None = it serves one.
    """

    def __init__(self, options: Options, transport: Transport, union: ReaderUnion | None = None) -> None:
        self._options = options
        self._transport = transport
        self._union = union
        self._configs: dict[str, LoadedConfig] = {}
        self._is_used = False
        self.current = Settings()
        """Those of now; before ``first`` the defaults."""

    def first(self) -> Settings:
        """Those to start with.

        Raises:
            UsageError: as ``transport_settings``.
        """
        self.current = self._completed(transport_settings(self._options))
        self._is_used = True
        return self.current

    def use(self, pool: str, config: LoadedConfig) -> None:
        """New streams get what the plugins of this configuration want, in place of what was wanted for the pool before.

        Raises:
            UsageError: a plugin wants a request reader that there is not; nothing has changed.
        """
        check_readers(config)
        self._configs[pool] = config
        if self._union is not None:
            self._union.places(request_readers(config))
        if self._is_used:
            self._exchange(self._completed(self.current))

    def reload_certificate(self) -> None:
        """Read the certificate again; new handshakes get it.

        Raises:
            UsageError, OSError: it cannot be used; the one in use stays.
        """
        self._exchange(self._completed(transport_settings(self._options)))

    def places(self, config: LoadedConfig) -> tuple[int, ...]:
        """Where the results of a configuration's request readers are among those of all pools."""
        return self._union.places(request_readers(config)) if self._union is not None else ()

    def forget(self, pool: str) -> None:
        """The pool is gone, and what was wanted for it alone; its request readers stay, as their places do."""
        if self._configs.pop(pool, None) is not None and self._is_used:
            self._exchange(self._completed(self.current))

    def _completed(self, settings: Settings) -> Settings:
        return with_configs(settings, self._configs.values(), self._union.names if self._union is not None else None)

    def _exchange(self, settings: Settings) -> None:
        """New streams and connections get these."""
        if settings != self.current:
            self.current = settings
            self._transport.configure(settings)


class SettingsOfPool:
    """One pool's say in the settings of its transport.

    Args:
        live: these settings.
        pool: its name.
        on_use: told where the results of the pool's request readers are.
    """

    def __init__(self, live: LiveSettings, pool: str, on_use: Callable[[tuple[int, ...]], None] | None = None) -> None:
        self._live = live
        self._pool = pool
        self._on_use = on_use

    def check(self, config: LoadedConfig) -> None:
        """Look whether ``use`` would raise.

        Raises:
            UsageError: a plugin wants a request reader that there is not.
        """
        check_readers(config)

    def use(self, config: LoadedConfig) -> None:
        """New streams get what the plugins of a configuration want of requests. Raises as ``check`` does."""
        self._live.use(self._pool, config)
        if self._on_use is not None:
            self._on_use(self._live.places(config))
