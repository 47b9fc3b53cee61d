"""The documentation as a site: ``make site`` builds it from docs/ and from the code; it is not part of an installation."""
