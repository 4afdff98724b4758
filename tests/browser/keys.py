"""Keys, as drivers of browsers name them."""

BACKSPACE, TAB, ENTER, CONTROL, ESCAPE, LEFT, RIGHT = "\ue003\ue004\ue007\ue009\ue00c\ue012\ue014"
