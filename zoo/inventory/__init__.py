"""From the map of a scene to an inventory: landslides as polygons with their attributes, in a GeoPackage and as GeoJSON.

    from zoo.inventory import InventoryOptions, write_inventory

    write_inventory("prob.tif", "slides.gpkg", "dem.tif", options=InventoryOptions(min_area_m2=500))

A landslide is an 8-connected component of pixels of the class landslide. See `attributes.py` for what is told of each.
"""

from zoo.inventory.inventory import Inventory, InventoryOptions, write_inventory

__all__ = ["Inventory", "InventoryOptions", "write_inventory"]
