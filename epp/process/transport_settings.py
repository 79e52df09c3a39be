"""Process options → what a transport needs to know."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from epp.config.loaded import LoadedConfig
from epp.errors import UsageError
from epp.extproc.readers import REQUEST_READERS
from epp.pool.build import request_readers
from epp.process.options import Options
from epp.request.headers import REQUEST_STRIP, RESPONSE_STRIP, WENT_INTO_RESPONSE
from epp.seam import Settings, Tls
from epp.telemetry.catalogue import ITL_S
from epp.transport.tls_settings import parse_cipher_suites, parse_min_version

RECEIVE_MARGIN_BYTES = 1024 * 1024
"""A message is a body and some framing."""


def transport_settings(options: Options) -> Settings:
    """The settings without what configurations want; reads the certificate, or makes one.

    Raises:
        UsageError: the certificate or a TLS flag cannot be used.
    """
    limit = options.max_request_body_bytes
    receive = options.grpc_max_recv_msg_size or (limit + RECEIVE_MARGIN_BYTES if limit else -1)
    return Settings(
        response_strip=RESPONSE_STRIP,
        response_set=((WENT_INTO_RESPONSE, "true"),),
        max_body_bytes=limit,
        max_buffered_bytes=options.max_buffered_bytes,
        gap_bounds_s=ITL_S,
        tls=_tls(options) if options.secure_serving else None,
        max_receive_bytes=receive,
        max_send_bytes=options.grpc_max_send_msg_size or -1,
    )


def with_configs(settings: Settings, configs: Iterable[LoadedConfig], readers: tuple[str, ...] | None = None) -> Settings:
    """The settings with what the plugins of configurations want of requests.

    Args:
        readers: of requests, in place of those that the plugins want.
    """
    configs = tuple(configs)
    if readers is None:
        readers = tuple(name for config in configs for name in request_readers(config))
    return settings._replace(
        request_strip=REQUEST_STRIP.union(*(plugin.type.header_strip for config in configs for plugin in config.plugins)),
        request_readers=readers,
    )


def check_readers(config: LoadedConfig) -> None:
    """The request readers that the plugins want exist.

    Raises:
        UsageError: one does not.
    """
    names = request_readers(config)
    problems = []
    for plugin in config.plugins:
        for name in sorted(set(plugin.type.reads.readers(plugin.params)) & set(names)):
            if REQUEST_READERS.knows(name):
                continue
            near = "".join(f'; did you mean "{match}"?' for match in get_close_matches(name, REQUEST_READERS.forms(), 1))
            problems.append(
                f'the plugin "{plugin.name}" ({plugin.type.type}) wants the request reader "{name}", which does not exist'
                f"{near} (there are: {', '.join(REQUEST_READERS.forms())})"
            )
    if problems:
        raise UsageError(problems)


def _tls(options: Options) -> Tls:
    from epp.transport.tls import load_pair, self_signed  # 8 MB that only a secure port needs

    pair = load_pair(Path(options.cert_path)) if options.cert_path else self_signed()
    return pair._replace(
        min_version=parse_min_version(options.tls_min_version),
        cipher_suites=parse_cipher_suites(options.tls_cipher_suites),
    )
