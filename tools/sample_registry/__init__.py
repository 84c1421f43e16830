"""A registry on loopback with one small repository, which stands in for Docker Hub where that is out of reach.

Its content is made by code, and served by the pull server of this project.
"""
