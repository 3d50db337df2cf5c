# SPDX-License-Identifier: Apache-2.0
"""The page of a real agent, in a browser beside the lab's client: ``make test-page-lab``."""
