"""The transport's settings while it serves: exchanged whole when a certificate or the configuration changes."""

from __future__ import annotations

from epp.config.loaded import LoadedConfig
from epp.process.options import Options
from epp.process.transport_settings import transport_settings, with_config
from epp.seam import Settings, Transport


class LiveSettings:
    """What the transport goes by.

    Args:
        options: of the process.
        transport: told of each change.
    """

    def __init__(self, options: Options, transport: Transport) -> None:
        self._options = options
        self._transport = transport
        self.current = Settings()
        """Those of now; before ``first`` the defaults."""

    def first(self, config: LoadedConfig) -> Settings:
        """Those to start with.

        Raises:
            UsageError: as ``transport_settings``.
        """
        self.current = transport_settings(self._options, config)
        return self.current

    def of(self, config: LoadedConfig) -> Settings:
        """The present ones with what the plugins of a configuration want; nothing is changed yet.

        Raises:
            UsageError: a plugin wants a request reader that there is not.
        """
        return with_config(self.current, config)

    def use(self, settings: Settings) -> None:
        """New streams and connections get these."""
        if settings != self.current:
            self.current = settings
            self._transport.configure(settings)

    def reload_certificate(self, config: LoadedConfig) -> None:
        """Read the certificate again; new handshakes get it.

        Raises:
            UsageError, OSError: it cannot be used; the one in use stays.
        """
        self.use(transport_settings(self._options, config))
