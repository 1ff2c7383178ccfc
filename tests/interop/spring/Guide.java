import java.lang.reflect.Type;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

import org.springframework.messaging.converter.MappingJackson2MessageConverter;
import org.springframework.messaging.simp.stomp.StompFrameHandler;
import org.springframework.messaging.simp.stomp.StompHeaders;
import org.springframework.messaging.simp.stomp.StompSession;
import org.springframework.messaging.simp.stomp.StompSessionHandlerAdapter;
import org.springframework.web.socket.client.standard.StandardWebSocketClient;
import org.springframework.web.socket.messaging.WebSocketStompClient;
import org.springframework.web.util.HtmlUtils;

/** `escapes`: each character that HtmlUtils escapes, and how. Else a URL: greets once, as the guide's own test does. */
public class Guide {
    public record Name(String name) {}

    public static class Greeting {
        public String content;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("escapes")) {
            for (int code = 0; code < 0xD800; code++) {
                String text = String.valueOf((char) code);
                if (!HtmlUtils.htmlEscape(text).equals(text)) System.out.println(code + " " + HtmlUtils.htmlEscape(text));
            }
            return;
        }
        WebSocketStompClient client = new WebSocketStompClient(new StandardWebSocketClient());
        client.setMessageConverter(new MappingJackson2MessageConverter());
        CompletableFuture<Greeting> heard = new CompletableFuture<>();
        client.connectAsync(arguments[0], new StompSessionHandlerAdapter() {
            @Override
            public void afterConnected(StompSession session, StompHeaders headers) {
                session.subscribe("/topic/greetings", new StompFrameHandler() {
                    @Override
                    public Type getPayloadType(StompHeaders of) {
                        return Greeting.class;
                    }

                    @Override
                    public void handleFrame(StompHeaders of, Object payload) {
                        heard.complete((Greeting) payload);
                    }
                });
                session.send("/app/hello", new Name("Spring"));
            }

            @Override
            public void handleTransportError(StompSession session, Throwable error) {
                heard.completeExceptionally(error);
            }
        });
        System.out.println(heard.get(20, TimeUnit.SECONDS).content);
        System.exit(0);
    }
}
