"""A bundle in a browser: one page that runs it without a server, a network or an installation."""

from flyweight.web.build import WebPage, render, write_page

__all__ = ["WebPage", "render", "write_page"]
